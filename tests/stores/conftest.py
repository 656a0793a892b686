import pytest
import servers


@pytest.fixture(scope="module", params=["gs", "s3"])
def bucket(request, tmp_path_factory):
    """The address of an empty bucket of an emulator, which this process and its children find."""
    with servers.running(request.param) as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        servers.forget()
        yield f"{request.param}://{servers.BUCKET}"
    servers.forget()
