"""What the hub's errors become: one line each, by what went wrong and what to do."""

import errno

import pytest
from huggingface_hub import errors

from jaxllm.interchange import resolve

ALL = "there is no folder owner/model, "


def answered(kind, status):
    """An error as the hub's answer of this status makes it."""
    from huggingface_hub.errors import Response  # of the HTTP client that huggingface_hub has
    from huggingface_hub.utils import get_session

    request = get_session().build_request("GET", "https://huggingface.co/api/models/owner/model")
    return kind(f"{status} Client Error.\n\nRequest ID: Root=1-2-3", response=Response(status, request=request))


def raised(status, code=None, address="https://huggingface.co/api/models/owner/model"):
    """The error that huggingface_hub itself makes of an answer."""
    from huggingface_hub.errors import Response
    from huggingface_hub.utils import get_session, hf_raise_for_status

    request = get_session().build_request("GET", address)
    response = Response(status, request=request, headers={} if code is None else {"X-Error-Code": code})
    with pytest.raises(errors.HfHubHTTPError) as error:
        hf_raise_for_status(response)
    return error.value


def of_xet(name, said):
    """An error of hf_xet's own."""
    return getattr(pytest.importorskip("hf_xet"), name)(said)


FILE = "https://huggingface.co/owner/model/resolve/0123/onnx/model.safetensors?download=true"
XET = "Task error: File reconstruction error: "
"""How each error of hf_xet's downloads begins; all are RuntimeErrors."""


def caused(error, cause):
    error.__cause__ = cause
    return error


CASES = {
    "gated": (
        lambda: answered(errors.GatedRepoError, 403),
        "the hub's owner/model is gated: accept its terms at https://huggingface.co/owner/model, then log in with `hf auth "
        "login`",
    ),
    "not there, or private": (
        lambda: answered(errors.RepositoryNotFoundError, 404),
        ALL + "and the hub has no model of that name, or a private one: check the name, or log in with `hf auth login`",
    ),
    "a wrong token": (
        lambda: answered(errors.HfHubHTTPError, 401),
        ALL + "and the hub has no model of that name, or a private one: check the name, or log in with `hf auth login`",
    ),
    "a token without the right": (
        lambda: answered(errors.HfHubHTTPError, 403),
        "the hub's owner/model may not be read with your token: ask its owner, or log in with another by `hf auth login`",
    ),
    "a revision": (
        lambda: answered(errors.RevisionNotFoundError, 404),
        "the hub's owner/model has no revision v7: name a branch, tag or commit that it has, or leave it out",
    ),
    "disabled": (
        lambda: answered(errors.DisabledRepoError, 403),
        "the hub's owner/model was disabled there: take another model, or a copy of it",
    ),
    "busy": (
        lambda: answered(errors.HfHubHTTPError, 429),
        "the hub answered 429 for owner/model: try again later, or copy its folder here",
    ),
    "down and not in the cache": (
        lambda: caused(errors.LocalEntryNotFoundError("no snapshot"), answered(errors.HfHubHTTPError, 503)),
        "the hub answered 503 for owner/model, and its cache has no revision v7 of it: try again later, or copy its folder "
        "here",
    ),
    "no connection": (
        lambda: caused(errors.LocalEntryNotFoundError("no snapshot"), ConnectionError("no route")),
        ALL + "no revision v7 of it in the hub's cache, and the hub cannot be reached: download it where there is a "
        "connection (`hf download owner/model`) and copy it here",
    ),
    "no connection in the middle": (
        lambda: errors.HfHubHTTPError.__mro__[1]("Connection reset"),
        ALL + "no revision v7 of it in the hub's cache, and the hub cannot be reached: download it where there is a "
        "connection (`hf download owner/model`) and copy it here",
    ),
    "a name that the hub cannot have": (
        lambda: errors.HFValidationError("Cannot have -- or .. in repo_id: 'owner/model'."),
        ALL + "and it is not a name on the hub: Cannot have -- or .. in repo_id: 'owner/model'.",
    ),
    "as the hub says it: gated": (
        lambda: raised(403, "GatedRepo"),
        "the hub's owner/model is gated: accept its terms at https://huggingface.co/owner/model, then log in with `hf auth "
        "login`",
    ),
    "as the hub says it: no such model": (
        lambda: raised(404, "RepoNotFound"),
        ALL + "and the hub has no model of that name, or a private one: check the name, or log in with `hf auth login`",
    ),
    "as the hub says it: no such revision": (
        lambda: raised(404, "RevisionNotFound"),
        "the hub's owner/model has no revision v7: name a branch, tag or commit that it has, or leave it out",
    ),
    "as the hub says it: no such file": (
        lambda: raised(404, "EntryNotFound", FILE),
        "the hub's owner/model lists onnx/model.safetensors and does not have it: try again later, or name another revision",
    ),
    "a file that is not there, by its first class": (
        lambda: errors.EntryNotFoundError("no entry"),
        "the hub's owner/model lists a file and does not have it: try again later, or name another revision",
    ),
    "a 404 without a reason": (
        lambda: raised(404, address="https://mirror.example/elsewhere"),
        "the hub answered 404 for owner/model: check the name and, where HF_ENDPOINT is set, that it is a hub's",
    ),
    "storage without a connection": (
        lambda: RuntimeError(
            XET + "CAS Client Error: Request middleware error: error sending request for url (https://cas.example/v2/a)"
        ),
        "the files of owner/model did not come whole from the hub's storage (File reconstruction error: CAS Client Error: "
        "Request middleware error: error sending request): try again, or set HF_HUB_DISABLE_XET=1 to have them another way",
    ),
    "storage that is down": (
        lambda: RuntimeError(
            XET + "CAS Client Error: Request error: HTTP status server error (503 Service Unavailable), domain: https://a/b"
        ),
        "the files of owner/model did not come whole from the hub's storage (File reconstruction error: CAS Client Error: "
        "Request error: HTTP status server error (503 Service Unavailable)): try again, or set HF_HUB_DISABLE_XET=1 to have "
        "them another way",
    ),
    "storage without the file": (
        lambda: of_xet("XetObjectNotFoundError", "object a1 not found"),
        "the files of owner/model did not come whole from the hub's storage (object a1 not found): try again, or set "
        "HF_HUB_DISABLE_XET=1 to have them another way",
    ),
    "storage that refuses the token": (
        lambda: of_xet("XetAuthenticationError", "token expired"),
        "the hub's storage refuses your token for owner/model: log in again with `hf auth login`",
    ),
    "storage, as huggingface_hub calls it": (
        lambda: errors.XetDownloadError("failed\nsecond line"),
        "the files of owner/model did not come whole from the hub's storage (failed): try again, or set "
        "HF_HUB_DISABLE_XET=1 to have them another way",
    ),
    "a disk that fills while storage sends": (
        lambda: RuntimeError(XET + "IO Error: No space left on device (os error 28)"),
        "the disk of downloads is full: make room for owner/model, or name another place by HF_HOME",
    ),
    "a folder of another while storage sends": (
        lambda: RuntimeError(XET + "IO Error: Permission denied (os error 13)"),
        "the cache may not be written: make it yours, or name another place for downloads such as owner/model by HF_HOME",
    ),
    "a disk that fills, as storage says it elsewhere": (
        lambda: RuntimeError("I/O error: No space left on device (os error 28)"),
        "the disk of downloads is full: make room for owner/model, or name another place by HF_HOME",
    ),
    "a disk that fills, in other words of storage": (
        lambda: RuntimeError("Background writer task failed: No space left on device (os error 28)"),
        "the disk of downloads is full: make room for owner/model, or name another place by HF_HOME",
    ),
    "storage in its older words": (
        lambda: RuntimeError("Data processing error: CAS service error : Error : single flight error"),
        "the files of owner/model did not come whole from the hub's storage (Data processing error: CAS service error : "
        "Error : single flight error): try again, or set HF_HUB_DISABLE_XET=1 to have them another way",
    ),
    "a file of another length": (
        lambda: OSError("Consistency check failed: file should be of size 3 but has size 2 (a).\nPlease retry."),
        "the files of owner/model did not come whole from the hub (Consistency check failed: file should be of size 3 but has "
        "size 2 (a)): try again",
    ),
    "a full disk": (
        lambda: OSError(errno.ENOSPC, "No space left on device", "/cache/blobs/1.incomplete"),
        "the disk of /cache/blobs/1.incomplete is full: make room for owner/model, or name another place by HF_HOME",
    ),
    "a folder of another": (
        lambda: PermissionError(errno.EACCES, "Permission denied", "/cache"),
        "/cache may not be written: make it yours, or name another place for downloads such as owner/model by HF_HOME",
    ),
    "another trouble of the disk": (
        lambda: OSError(errno.EIO, "Input/output error", "/cache/blobs/1"),
        "the files of owner/model could not be stored: [Errno 5] Input/output error: '/cache/blobs/1'; mend that, or name "
        "another place by HF_HOME",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_each_error_says_what_to_do(case, monkeypatch, tmp_path):
    make, message = CASES[case]
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)

    def download(*args, **options):
        raise make()

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(OSError) as error:
        resolve("owner/model", revision="v7")
    assert str(error.value) == message and error.value.__cause__ is not None
    beyond_the_name = ("disk", "stor", "folder of another", "length")  # it is there, and something else went wrong
    assert type(error.value) is (OSError if any(word in case for word in beyond_the_name) else FileNotFoundError)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("can't start new thread"),
        RuntimeError("etag is empty due to uncovered problems"),
        RecursionError("Task error: maximum recursion depth exceeded"),
        NotImplementedError("Task error: "),
    ],
    ids=str,
)
def test_other_trouble_stays_what_it_is(error, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *a, **k: (_ for _ in ()).throw(error))
    with pytest.raises(RuntimeError) as raised:
        resolve("owner/model")
    assert raised.value is error


def test_a_download_that_was_cut_off_is_told_from_one_that_never_was(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def download(*args, **options):
        raise errors.IncompleteSnapshotError("Missing files: model.safetensors", str(tmp_path))

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(FileNotFoundError, match="the hub's cache has owner/model in part only, and HF_HUB_OFFLINE is set: "):
        resolve("owner/model")


def test_the_nearest_folder_is_named_where_the_name_may_be_a_slip(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "models").mkdir(parents=True)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *a, **k: (_ for _ in ()).throw(CASES["a wrong token"][0]()))
    with pytest.raises(FileNotFoundError, match="; folders with names like it: owner/models"):
        resolve("owner/model")
