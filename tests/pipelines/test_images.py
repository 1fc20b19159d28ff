"""CIFAR-10's binary files are read as they are defined; what is none is refused with its reason."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from geta_nb.errors import InputError
from geta_nb.pipelines import cifar


def small_set(folder, per_file=4):
    draw = torch.Generator().manual_seed(0)
    train = torch.randint(0, 256, (5 * per_file, 3, 32, 32), generator=draw).to(torch.uint8), torch.arange(5 * per_file) % 10
    test = torch.randint(0, 256, (3, 3, 32, 32), generator=draw).to(torch.uint8), torch.tensor([9, 0, 3])
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    return cifar.write_cifar10(folder, train, test, names), train, test, names


def test_what_is_written_is_read_back(tmp_path):
    folder, train, test, names = small_set(tmp_path / "cifar-10-batches-bin")
    for place in (folder, tmp_path):  # the folder above will do
        data = cifar.read_cifar10(place)
        assert torch.equal(data.train_images, train[0]) and torch.equal(data.train_labels, train[1])
        assert torch.equal(data.test_images, test[0]) and torch.equal(data.test_labels, test[1])
        assert list(data.classes) == names


def test_a_record_is_a_label_then_red_green_blue_row_by_row(tmp_path):
    """By the definition of the data set's page, not by our writer."""
    folder, *_ = small_set(tmp_path)
    record = np.zeros(3073, np.uint8)
    record[0], record[1], record[2], record[1 + 32], record[1 + 1024], record[1 + 2048] = 7, 11, 12, 13, 14, 15
    record.tofile(folder / "test_batch.bin")
    data = cifar.read_cifar10(folder)
    image = data.test_images[0]
    assert data.test_labels.tolist() == [7]
    assert [int(image[0, 0, 0]), int(image[0, 0, 1]), int(image[0, 1, 0]), int(image[1, 0, 0]), int(image[2, 0, 0])] == [11, 12, 13, 14, 15]


def test_a_missing_a_cut_and_a_foreign_file_are_refused(tmp_path):
    folder, *_ = small_set(tmp_path)
    (folder / "data_batch_3.bin").write_bytes(b"\x00" * 3000)
    with pytest.raises(InputError, match=r"(?s)data_batch_3.*records of 3073 bytes.*3000 bytes"):
        cifar.read_cifar10(folder)
    (folder / "data_batch_3.bin").unlink()
    with pytest.raises(InputError, match="a file is missing"):
        cifar.read_cifar10(folder)
    (folder / "data_batch_3.bin").write_bytes(b"\x0b" + b"\x00" * 3072)
    with pytest.raises(InputError, match="a label has no name"):
        cifar.read_cifar10(folder)


def test_the_pickled_version_is_never_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("executed").mkdir, ())

    (tmp_path / "data_batch_1").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(InputError, match=r"cifar-10-binary\.tar\.gz"):
        cifar.read_cifar10(tmp_path)
    assert not (tmp_path / "executed").exists()


def test_the_stand_in_is_all_digits_in_the_form_of_cifar():
    data = cifar.load_cifar10(None)
    assert data.train_images.shape == (1437, 3, 32, 32) and data.test_images.shape == (360, 3, 32, 32)
    assert data.train_images.dtype == torch.uint8 and not data.mirror
    assert torch.bincount(data.test_labels).min() >= 33  # stratified: a tenth of each class
    images = data.standardised(data.train_images)
    # float32 mean of 4.4e6 numbers of size 1: error far below 1e-3
    assert abs(float(images.mean())) < 1e-3 and abs(float(images.std()) - 1) < 1e-3
    small = cifar.load_cifar10(None, smoke=True)
    assert (small.train_size, small.test_size) == (256, 120)


def test_a_folder_of_real_files_is_read_instead_of_the_stand_in(tmp_path):
    folder, train, *_ = small_set(tmp_path)
    data = cifar.load_cifar10(folder)
    assert data.mirror and data.train_size == len(train[1])
    images, labels = data.draw(torch.tensor([0, 3]), torch.Generator().manual_seed(0))
    assert images.shape == (2, 3, 32, 32) and images.dtype == torch.float32 and labels.tolist() == [0, 3]
