complete -c jouled -l config -d 'Configuration file; its drop-ins are FILE.d/*.toml' -r -F
complete -c jouled -l listen -d 'Address of the metrics page, instead of the configured ones; may be repeated' -r
complete -c jouled -l sysfs -d 'Root of sysfs, for meters and topology (cgroups are always where the kernel says)' -r -F
complete -c jouled -l procfs -d 'Root of procfs' -r -F
complete -c jouled -l state-dir -d 'Keep totals and joulectl\'s socket in this folder' -r -F
complete -c jouled -l record -d 'Record what is measured to this new file, for --replay (it contains the names of all processes)' -r -F
complete -c jouled -l replay -d 'Replay a recording, print the last snapshot as JSON, and end' -r -F
complete -c jouled -l log-level -d 'Log messages of this level and of more severe ones' -r -f -a "error\t''
warn\t''
info\t''
debug\t''
trace\t''"
complete -c jouled -l check-config -d 'Check the configuration, say what is wrong with it, and end'
complete -c jouled -s h -l help -d 'Print help (see more with \'--help\')'
complete -c jouled -s V -l version -d 'Print version'
