"""Which file system a folder lies on."""

from __future__ import annotations

from pathlib import Path

_NETWORK = ("nfs", "cifs", "smb", "afs", "ceph", "glusterfs", "lustre", "beegfs", "gpfs", "ncpfs", "davfs")
_NETWORK_FUSE = ("sshfs", "rclone", "s3fs", "glusterfs", "davfs", "smbnetfs", "curlftpfs", "gcsfuse")
_MOUNTS = Path("/proc/mounts")


def network_file_system(folder: Path, mounts: Path = _MOUNTS) -> str | None:
    """Return the type of the network file system that `folder` lies on, such as `nfs4`, or None.

    `mounts` is a file in the format of /proc/mounts; a system without one is taken to be local.
    """
    kind = _file_system(folder.resolve(), mounts)
    if kind.startswith("fuse."):
        return kind if kind.removeprefix("fuse.").startswith(_NETWORK_FUSE) else None
    return kind if kind.startswith(_NETWORK) else None


def _file_system(folder: Path, mounts: Path) -> str:
    """Return the type of the deepest mount above `folder`; of two on one point, the later hides the other."""
    try:
        lines = mounts.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return ""
    best, kind = -1, ""
    for fields in (line.split(" ") for line in lines):
        if len(fields) < 3:
            continue
        point = Path(_unescaped(fields[1]))
        if len(point.parts) >= best and (point == folder or point in folder.parents):
            best, kind = len(point.parts), fields[2]
    return kind


def _unescaped(text: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text
