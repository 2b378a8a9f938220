"""The folder of keys."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from differad_edge.errors import ConfigError
from differad_edge.runtime.keys import (
    ClientKeys,
    ServerKeys,
    add_client,
    client_names,
    create_server_keys,
    revoke_client,
)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_client_is_listed_and_gets_a_bundle(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    assert create_server_keys(folder)
    bundle = add_client(folder, "robot-1")
    server, client = ServerKeys.load(folder), ClientKeys.load(bundle)
    assert client.server_public == server.public
    assert server.allows(client.public)
    assert not server.allows(server.public)
    assert client_names(folder) == ["robot-1"]


def test_secrets_are_for_the_owner_alone(tmp_path: Path) -> None:
    create_server_keys(tmp_path / "keys")
    bundle = add_client(tmp_path / "keys", "robot-1")
    assert mode(tmp_path / "keys" / "server.json") == mode(bundle) == 0o600
    assert mode(tmp_path / "keys") == 0o700
    assert "secret" not in json.loads((tmp_path / "keys" / "clients" / "robot-1.json").read_text())
    for keys in (ServerKeys.load(tmp_path / "keys"), ClientKeys.load(bundle)):
        assert keys.secret.decode() not in repr(keys)


def test_an_existing_server_key_is_kept(tmp_path: Path) -> None:
    assert create_server_keys(tmp_path)
    before = ServerKeys.load(tmp_path).public
    assert not create_server_keys(tmp_path)
    assert ServerKeys.load(tmp_path).public == before


def test_a_name_is_given_once_and_may_be_given_again_when_revoked(tmp_path: Path) -> None:
    create_server_keys(tmp_path)
    first = ClientKeys.load(add_client(tmp_path, "robot-1"))
    with pytest.raises(ConfigError, match="'robot-1' has a key already"):
        add_client(tmp_path, "robot-1")
    revoke_client(tmp_path, "robot-1")
    assert not ServerKeys.load(tmp_path).allows(first.public)
    assert not (tmp_path / "bundles" / "robot-1.json").exists()
    second = ClientKeys.load(add_client(tmp_path, "robot-1"))
    assert not ServerKeys.load(tmp_path).allows(first.public)
    assert ServerKeys.load(tmp_path).allows(second.public)
    with pytest.raises(ConfigError, match="client: got 'robot-2', allowed: one that has a key: robot-1"):
        revoke_client(tmp_path, "robot-2")


@pytest.mark.parametrize("name", ["", "../evil", "a/b", ".hidden", "x" * 65, "a b"])
def test_names_are_safe_as_files(tmp_path: Path, name: str) -> None:
    create_server_keys(tmp_path)
    with pytest.raises(ConfigError, match="allowed: letters, digits"):
        add_client(tmp_path, name)
    with pytest.raises(ConfigError, match="allowed: letters, digits"):
        revoke_client(tmp_path, name)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"public": 5, "secret": 5}', '{"public": "short", "secret": "short"}']
)
def test_a_broken_file_is_named_and_its_content_is_not(tmp_path: Path, text: str) -> None:
    path = tmp_path / "server.json"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match=r"server\.json") as error:
        ServerKeys.load(tmp_path)
    assert "short" not in str(error.value)
    with pytest.raises(ConfigError, match=r"server\.json"):
        create_server_keys(tmp_path)


def test_a_broken_client_file_lets_nobody_in_and_shuts_nobody_out(tmp_path: Path) -> None:
    create_server_keys(tmp_path)
    good = ClientKeys.load(add_client(tmp_path, "good"))
    (tmp_path / "clients" / "broken.json").write_text("{")
    assert ServerKeys.load(tmp_path).allows(good.public)
    assert not ServerKeys.load(tmp_path).allows(b"x" * 40)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="allowed: a folder made by: differad-edge keys FOLDER"):
        ServerKeys.load(tmp_path)
    with pytest.raises(ConfigError, match="allowed: a file of the folder 'bundles'"):
        ClientKeys.load(tmp_path / "none.json")
    assert client_names(tmp_path) == []


def test_a_secret_that_others_can_read_is_refused(tmp_path: Path) -> None:
    create_server_keys(tmp_path)
    os.chmod(tmp_path / "server.json", 0o640)
    with pytest.raises(ConfigError, match=r"can be read by other users; close it with: chmod 600"):
        ServerKeys.load(tmp_path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be made"):
        create_server_keys(tmp_path / "file" / "keys")
