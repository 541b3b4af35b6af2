"""A dask cluster of two worker processes on loopback: prints its address, ends when its input closes."""

import sys

if __name__ == "__main__":
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2,
        threads_per_worker=2,
        processes=True,
        host="127.0.0.1",
        dashboard_address=None,  # pyright: ignore[reportArgumentType]
    ) as cluster:
        print(cluster.scheduler_address, flush=True)  # pyright: ignore[reportAttributeAccessIssue]
        sys.stdin.read()
