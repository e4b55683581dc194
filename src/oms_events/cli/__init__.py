"""The command `oms-events`. Its exit codes: `oms_events.cli.common.ExitCode`."""
