"""Number of components of real files: the known ones, and no absurd number on any other."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

import emcube as em

pytest.importorskip("rsciio", reason="instrument files need the extra 'vendor'")


def test_fept_core_shell(data_dir):
    found = em.estimate_n_components(em.open(data_dir / "eds_tem_fept" / "core_shell.hspy"))
    assert found.n_components == 3
    # The fourth value lies 2 % under the threshold, and the answer says so.
    assert 1 < found.margin.below < 3
    assert found.margin.above > 50
    assert "2." in found.reason


def test_fept_bare_core(data_dir):
    found = em.estimate_n_components(em.open(data_dir / "eds_tem_fept" / "bare_core.hspy"))
    assert found.n_components == 3
    assert found.margin.above > 5


def test_sio2_whose_rare_channels_mislead(data_dir):
    path = data_dir / "eds_tem_sio2" / "SiO2 EDS Spectrum Image.hspy"
    found = em.estimate_n_components(em.open(path))
    assert found.n_components == 3
    # Its empty regions hold counts in a few channels only, so pixels are pooled further.
    assert found.noise["pixel_counts"] > 100


def test_dacite_and_one_tilt_of_the_dust_particle(data_dir):
    dacite = em.open(data_dir / "eds_sem_dacite_P45" / "P45_the_default_job.bcf")
    assert em.estimate_n_components(dacite).n_components in (2, 3, 4)
    tilt = em.open(data_dir / "eds_tilt_IDP_L2083" / "0.bcf")
    assert em.estimate_n_components(tilt).n_components in range(4, 11)


def test_edax(data_dir, tmp_path):
    with zipfile.ZipFile(data_dir / "eds_sem_edax" / "EDAX_EDS_files.zip") as packed:
        packed.extractall(tmp_path)
    (path,) = tmp_path.rglob("*.spd")
    assert em.estimate_n_components(em.open(path)).n_components in (3, 4, 5)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("eels/EELS_signal.hdf5", None),
        ("eels/CuZn_EELS_mapping_tutorial.hspy", None),
        ("eels/LSMO_linescan.hspy", None),
        ("eels/DMReader_SpectrumImage_SI-EELS.dm3", None),
        ("vendor/EELS_SI.dm4", None),
        ("vendor/over16bit.bcf", None),
        ("vendor/bcf-edx-ebsd.bcf", None),
    ],
)
def test_files_that_do_not_tell_are_refused(data_dir, path, name):
    where = data_dir / path
    cube = em.open(where, name=name) if name else em.open(where)
    found = em.estimate_n_components(cube)
    assert found.n_components is None
    assert found.reason


@pytest.mark.parametrize(
    "path",
    [
        "vendor/test_TEM.bcf",
        "vendor/Hitachi_TM3030Plus.bcf",
        "vendor/30x30_instructively_packed_16bit_compressed.bcf",
        "vendor/bcf_v2_50x50px.bcf",
    ],
)
def test_no_absurd_number(data_dir, path):
    found = em.estimate_n_components(em.open(data_dir / path))
    assert found.refused or 1 <= found.n_components <= 12


def test_diffraction_patterns(data_dir):
    path = data_dir / "stem4d" / "FPD_HDF5.hdf5"
    found = em.estimate_n_components(em.open(path, name="/fpd_expt/fpd_data/data"))
    assert found.refused or found.n_components <= 20


def test_remote_sensing_reflectance_is_refused(data_dir):
    from scipy.io import loadmat

    cells = np.ascontiguousarray(loadmat(data_dir / "unmix_gt" / "Samson.mat")["Y"].T)
    assert em.estimate_n_components(cells).refused
