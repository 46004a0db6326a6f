import socket
from pathlib import Path

from services.embedded.ports import LOOPBACK, find_free_port, is_free, keep_port


def test_a_port_is_kept_from_start_to_start(tmp_path: Path) -> None:
    path = tmp_path / "port"
    assert keep_port(path) == keep_port(path) == int(path.read_text())


def test_a_port_that_somebody_else_took_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "port"
    port = keep_port(path)
    with socket.create_server((LOOPBACK, port)):
        assert not is_free(port)
        other = keep_port(path)
    assert other != port
    assert int(path.read_text()) == other


def test_a_damaged_port_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "port"
    path.write_text("no number")
    assert keep_port(path) in range(20_000, 32_768)


def test_ports_lie_below_those_of_outgoing_connections() -> None:
    assert find_free_port() < 32_768
