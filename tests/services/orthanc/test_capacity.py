"""Workers of one machine share what one process would take."""

from services.connections import share_of
from services.orthanc.capacity import WHOLE_CAPACITY, OrthancCapacity
from services.settings import Settings


def test_workers_together_take_what_one_process_takes_and_each_can_work() -> None:
    whole = OrthancCapacity(frames=4)
    assert whole.divided(1) == whole
    assert whole.divided(4) == OrthancCapacity(
        calls=8, downloads=2, stores=4, store_bytes=256 * 1024**2, reads=2, frames=2
    )
    least = WHOLE_CAPACITY.divided(64)
    assert min(least.calls, least.downloads, least.stores, least.reads, least.frames) >= 2


def test_the_limits_of_a_process_are_divided_and_those_of_a_request_stay() -> None:
    settings = Settings(_env_file=None, renderer_processes=3, frame_queue_size=65)
    share = share_of(settings, 2)
    assert (share.renderer_processes, share.frame_queue_size) == (2, 33)
    assert share.frame_cache_bytes * 2 == settings.frame_cache_bytes
    assert (share.websockets_per_client, share.archives_per_client) == (100, 2)
    assert share.upload_max_bytes == settings.upload_max_bytes
    assert share.operation_seconds == settings.operation_seconds
