from services.frames.cache import RenderedFrame


def test_pictures_have_one_tag_when_their_bytes_are_the_same() -> None:
    png = bytes(range(256)) * 400
    assert RenderedFrame.of(png) == RenderedFrame.of(bytes(bytearray(png)))
    changed = [png[:at] + bytes([png[at] ^ 1]) + png[at + 1 :] for at in (0, 1000, len(png) - 1)]
    tags = {RenderedFrame.of(one).etag for one in [png, *changed, png[:-1], png + b"\0"]}
    assert len(tags) == 6
    assert all(tag.startswith('"') and tag.endswith('"') and tag[1:-1].isalnum() for tag in tags)
