"""elision serve."""

from pathlib import Path

from elision.cli.flags import Integer

__all__ = ["serve"]


def serve(
    folder: Path = Path("runs"), *, host: str = "127.0.0.1", port: Integer = 8000
) -> None:
    """List run folders in a browser, live while they train; Ctrl-C ends it.

    Each with its state, epochs, last loss and score, and its report. Files are only read,
    and only those of runs below the folder. Readers on this machine alone see it, unless
    --host says otherwise.

    Parameters
    ----------
    folder
        Folder of run folders, such as runs, or a run folder.
    host
        Address to listen at; others than 127.0.0.1 and ::1 are open to the network, without
        a password.
    port
        To listen at; where it is taken, a free one.
    """
    import ipaddress
    from contextlib import suppress

    from elision.common.checks import integer
    from elision.study.served import RunServer

    integer("serve", "port", port, "[0, 65535]")
    with RunServer(folder, host, port) as server:
        print(f"{folder}: {server.url} (Ctrl-C ends it)", flush=True)
        with suppress(ValueError):
            if not ipaddress.ip_address(str(server.server_address[0])).is_loopback:
                print("open to everybody who reaches this address", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("\nelision: served until here")
