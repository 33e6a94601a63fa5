"""A systemd unit for a server: what it needs and nothing else."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path

import msgspec

from edgeclip.serve.serve_settings import ServeSettings

UNIT = """\
[Unit]
Description=edgeclip: embeddings and photo search
After=network.target

[Service]
ExecStart={command}
Restart=on-failure
{user}
CacheDirectory=edgeclip
Environment=XDG_CACHE_HOME=%C/edgeclip HF_HOME=%C/edgeclip/huggingface
{credential}TimeoutStopSec={stop}
ProtectSystem=strict
ProtectHome=read-only
{writable}PrivateTmp=yes
PrivateDevices=yes
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
ProtectProc=invisible
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
UMask=0077

[Install]
WantedBy=multi-user.target
"""
"""`MemoryDenyWriteExecute` is not there: ONNX Runtime writes code for some processors as it runs."""


def unit(settings: ServeSettings) -> str:
    """The unit's text. With an index it runs as whoever asks, who can read the pictures; else as a user of its own."""
    given = msgspec.structs.asdict(settings)
    defaults = msgspec.structs.asdict(ServeSettings(bundle=settings.bundle))
    bundle, token = Path(settings.bundle), settings.token_file
    given["db"] = settings.db and settings.db.absolute()
    words = [sys.executable, "-m", "edgeclip", "serve", str(bundle.absolute()) if bundle.exists() else settings.bundle]
    for name, value in given.items():
        if name not in ("bundle", "token_file") and value != defaults[name]:
            words += ["--" + name.replace("_", "-"), str(value)]
    command = " ".join(map(_quoted, words)) + (" --token-file %d/token" if token else "")
    return UNIT.format(
        command=command,
        user=f"User={getpass.getuser()}" if settings.db else "DynamicUser=yes",
        credential=f"LoadCredential=token:{str(token.absolute()).replace('%', '%%')}\n" if token else "",
        stop=settings.timeout + 10,
        writable=f"ReadWritePaths={_quoted(str(given['db'].parent))}\n" if settings.db else "",
    )


def _quoted(word: str) -> str:
    """A word that systemd reads as it is: without its specifiers, variables and escapes."""
    word = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{word}"' if any(letter in word for letter in " \t'\"\\;") else word
