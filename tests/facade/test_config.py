"""What may be said about quantizers, and what is refused."""

import pickle
from dataclasses import FrozenInstanceError

import pytest

from geta_nb.config import QuantConfig, check_bit_range
from geta_nb.errors import BitWidthError, ConfigError


def test_defaults_are_those_of_the_public_contract():
    config = QuantConfig()
    assert (config.weights, config.activations, config.initial_bits) == (True, False, 16)
    assert (config.learn_exponent, config.learn_activation_exponent, config.skip) == (True, False, ())


@pytest.mark.parametrize("bits", [1, 33, 8.0, True, "8", None])
def test_initial_bits_out_of_range_are_refused(bits):
    with pytest.raises(BitWidthError, match="initial_bits"):
        QuantConfig(initial_bits=bits)


@pytest.mark.parametrize("bits", [(1, 8), (8, 4), (4,), (4, 33), (4.0, 8), 8, None, (4, 8, 16), (True, 8), "48"])
def test_a_bit_range_is_two_ordered_whole_numbers(bits):
    with pytest.raises(BitWidthError, match="bit_range"):
        check_bit_range("bit_range", bits)


def test_a_list_will_do_for_a_range_and_for_skip():
    assert check_bit_range("r", [4, 8]) == (4, 8)
    assert QuantConfig(skip=["a", "b"]).skip == ("a", "b")


def test_a_bare_string_is_no_list_of_patterns():
    with pytest.raises(ConfigError, match=r"skip=\('head',\)"):
        QuantConfig(skip="head")


@pytest.mark.parametrize("name", ["weights", "activations", "learn_exponent", "learn_activation_exponent"])
def test_switches_are_booleans(name):
    with pytest.raises(ConfigError, match=name):
        QuantConfig(**{name: 1})


def test_a_config_is_frozen_and_survives_pickling():
    config = QuantConfig(activations=True, skip=("head.*",))
    assert pickle.loads(pickle.dumps(config)) == config
    with pytest.raises(FrozenInstanceError):
        config.weights = False
