"""Settings: defaults, YAML files, and a message for every mistake."""

from __future__ import annotations

from pathlib import Path

import pydantic
import pytest

from differad_edge.config import AlignmentConfig, InspectorConfig, load_config, parse_config
from differad_edge.errors import ConfigError


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "inspector.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_sets_what_it_names_and_leaves_the_rest(tmp_path: Path) -> None:
    text = "store: products\ndeadline_ms: 100\nalignment:\n  max_angle_deg: 3\n  scale_range: [0.95, 1.05]\n"
    config = load_config(write(tmp_path, text), InspectorConfig)
    assert config.store == Path("products")
    assert config.deadline_ms == 100.0
    assert config.alignment.scale_range == (0.95, 1.05)
    assert config.alignment.local_shift_px == AlignmentConfig().local_shift_px
    assert config.engine == "lite"


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n"])
def test_an_empty_file_gives_the_defaults(tmp_path: Path, text: str) -> None:
    assert load_config(write(tmp_path, text), InspectorConfig) == InspectorConfig()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("deadlin_ms: 5", "deadlin_ms: unknown setting, allowed here: alignment, cascade, deadline_ms, engine"),
        ("alignment: {angle: 5}", "alignment.angle: unknown setting, allowed here: local_shift_px, max_angle_deg"),
        ("deadline_ms: -5", "deadline_ms: got -5, allowed: greater than 0"),
        ("deadline_ms: 0", "deadline_ms: got 0, allowed: greater than 0"),
        ("deadline_ms: .nan", "deadline_ms: got nan, allowed: a finite number"),
        ("deadline_ms: .inf", "deadline_ms: got inf, allowed: a finite number"),
        ("deadline_ms: soon", "deadline_ms: got 'soon', allowed: a valid number"),
        ("threads: 0", "threads: got 0, allowed: greater than or equal to 1"),
        ("threads: 1.5", "threads: got 1.5, allowed: a valid integer"),
        ("engine: ''", "engine: got ''"),
        ("alignment: {max_shift_share: 1.5}", "alignment.max_shift_share: got 1.5, allowed: less than or equal to 1"),
        ("alignment: {scale_range: [1.1, 1.2]}", "alignment.scale_range: got [1.1, 1.2], allowed: smallest <= 1"),
        ("alignment: {scale_range: [-1, 1.2]}", "alignment.scale_range.0: got -1, allowed: greater than 0"),
        ("thresholds: {score: 2}", "thresholds.score: got 2, allowed: less than or equal to 1"),
        ("thresholds: {false_reject_rate: 0}", "thresholds.false_reject_rate: got 0, allowed: greater than 0"),
        ("thresholds: 0.5", "thresholds: got 0.5, allowed"),
        ("- 1", "got list, allowed: a mapping of settings"),
        ("just text", "got str, allowed: a mapping of settings"),
        ("engine: lite\nengine: vlm", "the key 'engine' is given twice"),
        ("alignment: {max_angle_deg: 1, max_angle_deg: 2}", "the key 'max_angle_deg' is given twice"),
        ("engine: [", "no valid YAML"),
        ("engine: !!python/object/apply:os.getcwd []", "no valid YAML"),
    ],
)
def test_mistakes_are_named_with_field_value_and_what_is_allowed(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_config(path, InspectorConfig)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, "threads: 0\ndeadline_ms: -1\nfoo: 1\n"), InspectorConfig)
    assert len(str(caught.value).splitlines()) == 3


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"engine: \xff\xfe\xfa")
    large = write(tmp_path, "# " + "x" * 1_000_001)
    for path in (tmp_path / "absent.yaml", tmp_path, latin, large):
        with pytest.raises(ConfigError) as caught:
            load_config(path, InspectorConfig)
        assert str(path) in str(caught.value)


def test_a_deep_file_ends_in_a_typed_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        load_config(write(tmp_path, "[" * 20_000), InspectorConfig)


def test_merge_keys_are_yaml_and_allowed(tmp_path: Path) -> None:
    class Two(pydantic.BaseModel):
        first: AlignmentConfig
        second: AlignmentConfig

    text = "first: &a {max_angle_deg: 3, max_residual: 0.5}\nsecond: {<<: *a, max_residual: 0.25}\n"
    second = load_config(write(tmp_path, text), Two).second
    assert (second.max_angle_deg, second.max_residual) == (3, 0.25)


def test_a_missing_setting_without_default_is_named() -> None:
    class Camera(pydantic.BaseModel):
        serial: str

    with pytest.raises(ConfigError, match=r"^line\.yaml: serial: missing, and it has no default$"):
        parse_config({}, Camera, where="line.yaml")


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(pydantic.ValidationError):
        InspectorConfig().engine = "vlm"  # type: ignore[misc]


def test_shift_limit_counts_pixels_before_shares() -> None:
    assert AlignmentConfig().shift_limit_px(800, 600) == pytest.approx(90)
    assert AlignmentConfig(max_shift_px=12).shift_limit_px(800, 600) == 12
    assert AlignmentConfig(max_shift_px=0).shift_limit_px(800, 600) == 0
