"""A private mongod and a private Orthanc as child processes, for as long as the server runs.

What the rest of the server uses:

- `stores.open_stores(...)`: start what is not given from outside, both at once.
- `data_dir.read_running_stores(data_dir)`: the stores of a server that runs beside a command.
- `data_dir.DataDirInUse`: a second server on one data directory.
- `mongod.run_mongod(folder)` and `orthanc.run_orthanc(folder)`: one store alone.

The children listen on the loopback interface, have generated passwords, are restarted when they die
and end with this process, even after SIGKILL. Run the event loop in the main thread: the kernel
ends the children with the *thread* that started them.
"""
