# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_joulectl_global_optspecs
    string join \n socket= h/help V/version
end

function __fish_joulectl_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_joulectl_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_joulectl_using_subcommand
    set -l cmd (__fish_joulectl_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c joulectl -n "__fish_joulectl_needs_command" -l socket -d 'jouled\'s socket [default: $JOULED_SOCKET, else /run/jouled/jouled.sock, else $XDG_RUNTIME_DIR/jouled/jouled.sock]' -r -F
complete -c joulectl -n "__fish_joulectl_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c joulectl -n "__fish_joulectl_needs_command" -s V -l version -d 'Print version'
complete -c joulectl -n "__fish_joulectl_needs_command" -f -a "status" -d 'What is measured: sources and their state, domains, idle floor, losses, jouled\'s own cost'
complete -c joulectl -n "__fish_joulectl_needs_command" -f -a "meters" -d 'Every meter of this machine: what it covers and contains, what it is used for, or why it is not used'
complete -c joulectl -n "__fish_joulectl_needs_command" -f -a "top" -d 'A live view: meters and their health, then units, containers, VMs and processes'
complete -c joulectl -n "__fish_joulectl_needs_command" -f -a "list" -d 'A table of all entities of one kind, with sums that add up to the node\'s energy'
complete -c joulectl -n "__fish_joulectl_needs_command" -f -a "report" -d 'What was drawn between two times, by entity, in sums that add up to the node\'s energy'
complete -c joulectl -n "__fish_joulectl_needs_command" -f -a "history" -d 'The energy of one entity over time, as a plot'
complete -c joulectl -n "__fish_joulectl_needs_command" -f -a "fetch" -d 'Gets carbon intensities or prices from a service, into a file that jouled watches'
complete -c joulectl -n "__fish_joulectl_needs_command" -f -a "model" -d 'Power models: what a machine without a meter draws, and how well that is known'
complete -c joulectl -n "__fish_joulectl_needs_command" -f -a "guest" -d 'Power meters in guests that need no agent'
complete -c joulectl -n "__fish_joulectl_needs_command" -f -a "key" -d 'Keys that sign files'
complete -c joulectl -n "__fish_joulectl_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c joulectl -n "__fish_joulectl_using_subcommand status" -l socket -d 'jouled\'s socket [default: $JOULED_SOCKET, else /run/jouled/jouled.sock, else $XDG_RUNTIME_DIR/jouled/jouled.sock]' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand status" -l json -d 'One JSON object'
complete -c joulectl -n "__fish_joulectl_using_subcommand status" -s h -l help -d 'Print help'
complete -c joulectl -n "__fish_joulectl_using_subcommand meters; and not __fish_seen_subcommand_from compare help" -l socket -d 'jouled\'s socket [default: $JOULED_SOCKET, else /run/jouled/jouled.sock, else $XDG_RUNTIME_DIR/jouled/jouled.sock]' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand meters; and not __fish_seen_subcommand_from compare help" -l json -d 'One JSON object'
complete -c joulectl -n "__fish_joulectl_using_subcommand meters; and not __fish_seen_subcommand_from compare help" -s h -l help -d 'Print help'
complete -c joulectl -n "__fish_joulectl_using_subcommand meters; and not __fish_seen_subcommand_from compare help" -f -a "compare" -d 'A meter of the whole machine (a smart plug, a PDU, a BMC) beside what jouled measures, as a line and a plot'
complete -c joulectl -n "__fish_joulectl_using_subcommand meters; and not __fish_seen_subcommand_from compare help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c joulectl -n "__fish_joulectl_using_subcommand meters; and __fish_seen_subcommand_from compare" -l against -d 'The meter: its source (`http:plug`), its name (`plug`), or a kind of meter (`wall`)' -r
complete -c joulectl -n "__fish_joulectl_using_subcommand meters; and __fish_seen_subcommand_from compare" -l for -d 'For so long: 20s to 24h' -r
complete -c joulectl -n "__fish_joulectl_using_subcommand meters; and __fish_seen_subcommand_from compare" -l socket -d 'jouled\'s socket [default: $JOULED_SOCKET, else /run/jouled/jouled.sock, else $XDG_RUNTIME_DIR/jouled/jouled.sock]' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand meters; and __fish_seen_subcommand_from compare" -l json -d 'One JSON object'
complete -c joulectl -n "__fish_joulectl_using_subcommand meters; and __fish_seen_subcommand_from compare" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c joulectl -n "__fish_joulectl_using_subcommand meters; and __fish_seen_subcommand_from help" -f -a "compare" -d 'A meter of the whole machine (a smart plug, a PDU, a BMC) beside what jouled measures, as a line and a plot'
complete -c joulectl -n "__fish_joulectl_using_subcommand meters; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c joulectl -n "__fish_joulectl_using_subcommand top" -s n -l count -d 'End after this many refreshes' -r
complete -c joulectl -n "__fish_joulectl_using_subcommand top" -l socket -d 'jouled\'s socket [default: $JOULED_SOCKET, else /run/jouled/jouled.sock, else $XDG_RUNTIME_DIR/jouled/jouled.sock]' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand top" -l json -d 'One JSON object per tick and line, with every entity'
complete -c joulectl -n "__fish_joulectl_using_subcommand top" -s h -l help -d 'Print help'
complete -c joulectl -n "__fish_joulectl_using_subcommand list" -l limit -d 'Show only the first N; the others are summed up in one line' -r
complete -c joulectl -n "__fish_joulectl_using_subcommand list" -l sort -d 'Order of the entities' -r -f -a "power\t'The most power first, then the most energy'
energy\t'The most energy first'
name\t'By name'"
complete -c joulectl -n "__fish_joulectl_using_subcommand list" -l socket -d 'jouled\'s socket [default: $JOULED_SOCKET, else /run/jouled/jouled.sock, else $XDG_RUNTIME_DIR/jouled/jouled.sock]' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand list" -l ended -d 'Only entities that have ended, with their last numbers, and no sums'
complete -c joulectl -n "__fish_joulectl_using_subcommand list" -l json -d 'A JSON array (see `joulectl help list`)'
complete -c joulectl -n "__fish_joulectl_using_subcommand list" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c joulectl -n "__fish_joulectl_using_subcommand report; and not __fish_seen_subcommand_from year statement verify help" -l by -d 'What the lines are [default: tenant where tenants are configured, else unit]' -r
complete -c joulectl -n "__fish_joulectl_using_subcommand report; and not __fish_seen_subcommand_from year statement verify help" -l from -d 'Begin [default: this-month]' -r
complete -c joulectl -n "__fish_joulectl_using_subcommand report; and not __fish_seen_subcommand_from year statement verify help" -l to -d 'End, included [default: now]' -r
complete -c joulectl -n "__fish_joulectl_using_subcommand report; and not __fish_seen_subcommand_from year statement verify help" -l step -d 'A part for each of these' -r -f -a "hour\t'Hours of the local clock'
day\t'Days of the local clock'
month\t'Months of the local clock'"
complete -c joulectl -n "__fish_joulectl_using_subcommand report; and not __fish_seen_subcommand_from year statement verify help" -l limit -d 'Show only the first N of each part; the others are added to `other`' -r
complete -c joulectl -n "__fish_joulectl_using_subcommand report; and not __fish_seen_subcommand_from year statement verify help" -l format -d 'How it is written' -r -f -a "table\t'For people'
csv\t'Comma-separated values with a line of names'
json\t'An array of objects'
focus\t'CSV with the columns of FOCUS 1.2, for tools for cloud costs'"
complete -c joulectl -n "__fish_joulectl_using_subcommand report; and not __fish_seen_subcommand_from year statement verify help" -l output -d 'Write to this file, in place of one that is there' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand report; and not __fish_seen_subcommand_from year statement verify help" -l sign -d 'Sign the file with this private key (joulectl key generate): writes FILE.sig beside it' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand report; and not __fish_seen_subcommand_from year statement verify help" -l pue -d 'Multiply carbon and cost by this PUE (the site\'s energy by its machines\') [default: of the configuration]' -r
complete -c joulectl -n "__fish_joulectl_using_subcommand report; and not __fish_seen_subcommand_from year statement verify help" -l sci -d 'Software carbon intensity (ISO/IEC 21031) of the machine, by so many functional units where they are known' -r
complete -c joulectl -n "__fish_joulectl_using_subcommand report; and not __fish_seen_subcommand_from year statement verify help" -l socket -d 'jouled\'s socket [default: $JOULED_SOCKET, else /run/jouled/jouled.sock, else $XDG_RUNTIME_DIR/jouled/jouled.sock]' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand report; and not __fish_seen_subcommand_from year statement verify help" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c joulectl -n "__fish_joulectl_using_subcommand report; and not __fish_seen_subcommand_from year statement verify help" -f -a "year" -d 'The yearly figures of this machine that operators of data centres report (Delegated Regulation (EU) 2024/1364, Annexes II and III): E_IT with its quality and gaps. Figures that a machine cannot know are listed as not known'
complete -c joulectl -n "__fish_joulectl_using_subcommand report; and not __fish_seen_subcommand_from year statement verify help" -f -a "statement" -d 'The statement of an entity, also of one that has ended: its times, energy by zone and mode, carbon, cost, and the quality of these numbers'
complete -c joulectl -n "__fish_joulectl_using_subcommand report; and not __fish_seen_subcommand_from year statement verify help" -f -a "verify" -d 'Checks the signature of a file with a report: who signed it, when, and of which host it is. Exit code 0: it is right, and of a trusted key. One changed byte, also a blank or the end of a line, makes it wrong: then nothing in the file can be believed'
complete -c joulectl -n "__fish_joulectl_using_subcommand report; and not __fish_seen_subcommand_from year statement verify help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c joulectl -n "__fish_joulectl_using_subcommand report; and __fish_seen_subcommand_from year" -l output -d 'Write to this file, in place of one that is there' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand report; and __fish_seen_subcommand_from year" -l sign -d 'Sign the file with this private key (joulectl key generate): writes FILE.sig beside it' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand report; and __fish_seen_subcommand_from year" -l socket -d 'jouled\'s socket [default: $JOULED_SOCKET, else /run/jouled/jouled.sock, else $XDG_RUNTIME_DIR/jouled/jouled.sock]' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand report; and __fish_seen_subcommand_from year" -l json -d 'One JSON object'
complete -c joulectl -n "__fish_joulectl_using_subcommand report; and __fish_seen_subcommand_from year" -s h -l help -d 'Print help'
complete -c joulectl -n "__fish_joulectl_using_subcommand report; and __fish_seen_subcommand_from statement" -l from -d 'Begin, as of a report [default: all that is kept]' -r
complete -c joulectl -n "__fish_joulectl_using_subcommand report; and __fish_seen_subcommand_from statement" -l to -d 'End, included [default: now]' -r
complete -c joulectl -n "__fish_joulectl_using_subcommand report; and __fish_seen_subcommand_from statement" -l pue -d 'Multiply carbon and cost by this PUE [default: of the configuration]' -r
complete -c joulectl -n "__fish_joulectl_using_subcommand report; and __fish_seen_subcommand_from statement" -l output -d 'Write to this file, in place of one that is there' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand report; and __fish_seen_subcommand_from statement" -l sign -d 'Sign the file with this private key (joulectl key generate): writes FILE.sig beside it' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand report; and __fish_seen_subcommand_from statement" -l socket -d 'jouled\'s socket [default: $JOULED_SOCKET, else /run/jouled/jouled.sock, else $XDG_RUNTIME_DIR/jouled/jouled.sock]' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand report; and __fish_seen_subcommand_from statement" -l json -d 'One JSON object'
complete -c joulectl -n "__fish_joulectl_using_subcommand report; and __fish_seen_subcommand_from statement" -s h -l help -d 'Print help'
complete -c joulectl -n "__fish_joulectl_using_subcommand report; and __fish_seen_subcommand_from verify" -l key -d 'A public key that counts, in place of those of --trusted; may be given again' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand report; and __fish_seen_subcommand_from verify" -l trusted -d 'The folder of the public keys whose signatures count' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand report; and __fish_seen_subcommand_from verify" -l socket -d 'jouled\'s socket [default: $JOULED_SOCKET, else /run/jouled/jouled.sock, else $XDG_RUNTIME_DIR/jouled/jouled.sock]' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand report; and __fish_seen_subcommand_from verify" -s h -l help -d 'Print help'
complete -c joulectl -n "__fish_joulectl_using_subcommand report; and __fish_seen_subcommand_from help" -f -a "year" -d 'The yearly figures of this machine that operators of data centres report (Delegated Regulation (EU) 2024/1364, Annexes II and III): E_IT with its quality and gaps. Figures that a machine cannot know are listed as not known'
complete -c joulectl -n "__fish_joulectl_using_subcommand report; and __fish_seen_subcommand_from help" -f -a "statement" -d 'The statement of an entity, also of one that has ended: its times, energy by zone and mode, carbon, cost, and the quality of these numbers'
complete -c joulectl -n "__fish_joulectl_using_subcommand report; and __fish_seen_subcommand_from help" -f -a "verify" -d 'Checks the signature of a file with a report: who signed it, when, and of which host it is. Exit code 0: it is right, and of a trusted key. One changed byte, also a blank or the end of a line, makes it wrong: then nothing in the file can be believed'
complete -c joulectl -n "__fish_joulectl_using_subcommand report; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c joulectl -n "__fish_joulectl_using_subcommand history" -l by -d 'What kind of entity it is' -r
complete -c joulectl -n "__fish_joulectl_using_subcommand history" -l from -d 'Begin, as of `joulectl report` [default: 24h]' -r
complete -c joulectl -n "__fish_joulectl_using_subcommand history" -l to -d 'End, included [default: now]' -r
complete -c joulectl -n "__fish_joulectl_using_subcommand history" -l step -d 'A bar for each of these' -r -f -a "hour\t'Hours of the local clock'
day\t'Days of the local clock'
month\t'Months of the local clock'"
complete -c joulectl -n "__fish_joulectl_using_subcommand history" -l socket -d 'jouled\'s socket [default: $JOULED_SOCKET, else /run/jouled/jouled.sock, else $XDG_RUNTIME_DIR/jouled/jouled.sock]' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand history" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c joulectl -n "__fish_joulectl_using_subcommand fetch" -l out -d 'The file that is written' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand fetch" -l zone -d 'The zone, country, region or postcode that is asked for' -r
complete -c joulectl -n "__fish_joulectl_using_subcommand fetch" -l url -d 'Another address of the service; of prometheus the address of the server' -r
complete -c joulectl -n "__fish_joulectl_using_subcommand fetch" -l query -d 'Of prometheus: the query, whose result is one number' -r
complete -c joulectl -n "__fish_joulectl_using_subcommand fetch" -l currency -d 'Of prometheus: the number is a price in this currency' -r
complete -c joulectl -n "__fish_joulectl_using_subcommand fetch" -l add -d 'Taxes and fees by kWh that are added to each price' -r
complete -c joulectl -n "__fish_joulectl_using_subcommand fetch" -l key-file -d 'A file with the key of the service; an empty one is no key' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand fetch" -l ca-file -d 'Certificates (PEM) that sign that of the service, in place of the system\'s' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand fetch" -l socket -d 'jouled\'s socket [default: $JOULED_SOCKET, else /run/jouled/jouled.sock, else $XDG_RUNTIME_DIR/jouled/jouled.sock]' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand fetch" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and not __fish_seen_subcommand_from prior train evaluate list show export import sign verify fetch compare help" -l socket -d 'jouled\'s socket [default: $JOULED_SOCKET, else /run/jouled/jouled.sock, else $XDG_RUNTIME_DIR/jouled/jouled.sock]' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and not __fish_seen_subcommand_from prior train evaluate list show export import sign verify fetch compare help" -s h -l help -d 'Print help'
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and not __fish_seen_subcommand_from prior train evaluate list show export import sign verify fetch compare help" -f -a "prior" -d 'The power that a machine is expected to draw by load, from its description alone'
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and not __fish_seen_subcommand_from prior train evaluate list show export import sign verify fetch compare help" -f -a "train" -d 'A model from samples of a machine with a meter'
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and not __fish_seen_subcommand_from prior train evaluate list show export import sign verify fetch compare help" -f -a "evaluate" -d 'How wrong a model is on samples that it was not trained on'
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and not __fish_seen_subcommand_from prior train evaluate list show export import sign verify fetch compare help" -f -a "list" -d 'The models that are installed, and those that jouled learned'
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and not __fish_seen_subcommand_from prior train evaluate list show export import sign verify fetch compare help" -f -a "show" -d 'Weights, intervals and errors of one model'
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and not __fish_seen_subcommand_from prior train evaluate list show export import sign verify fetch compare help" -f -a "export" -d 'Writes a model to a file'
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and not __fish_seen_subcommand_from prior train evaluate list show export import sign verify fetch compare help" -f -a "import" -d 'Checks the file of a model and installs it'
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and not __fish_seen_subcommand_from prior train evaluate list show export import sign verify fetch compare help" -f -a "sign" -d 'Signs the file of a model: FILE.sig beside it'
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and not __fish_seen_subcommand_from prior train evaluate list show export import sign verify fetch compare help" -f -a "verify" -d 'Checks the signature of the file of a model'
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and not __fish_seen_subcommand_from prior train evaluate list show export import sign verify fetch compare help" -f -a "fetch" -d 'Gets files of models from the addresses of a list'
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and not __fish_seen_subcommand_from prior train evaluate list show export import sign verify fetch compare help" -f -a "compare" -d 'The errors of several models on the same samples'
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and not __fish_seen_subcommand_from prior train evaluate list show export import sign verify fetch compare help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from prior" -l cpu -d '`model name` of /proc/cpuinfo [default: this machine\'s]' -r
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from prior" -l packages -d 'Number of processor packages (sockets) [default: this machine\'s; 1 with --cpu]' -r
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from prior" -l threads -d 'Number of hardware threads of all packages [default: this machine\'s; with --cpu it must be given]' -r
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from prior" -l memory-gib -d 'Memory in GiB [default: this machine\'s; not known with --cpu]' -r
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from prior" -l policy -d 'Whether the processors raise their frequency above the nominal one [default: this machine\'s; with --cpu, turbo for processors that are made for a cloud, and efficient for all others]' -r -f -a "turbo\t'Turbo is on: the default of firmware, and of clouds'
efficient\t'Turbo is off, as in the servers of SPECpower\'s results'"
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from prior" -l socket -d 'jouled\'s socket [default: $JOULED_SOCKET, else /run/jouled/jouled.sock, else $XDG_RUNTIME_DIR/jouled/jouled.sock]' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from prior" -l vm -d 'The machine is a VM: its threads are vCPUs of a host with such processors'
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from prior" -l json -d 'A JSON array, one object for each load of 0, 10, … 100 %'
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from prior" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from train" -l samples -d 'CSV with the columns regime,seconds,busy,cycles,instructions,llc_misses,package_watts,dram_watts,platform_watts' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from train" -l recording -d 'A recording of jouled (--record) on a machine with a meter; what ran is the process that ran most' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from train" -l target -d 'Whose power' -r -f -a "package\t'All processor packages together'
dram\t'All memory that is metered apart'
platform\t'The whole machine'"
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from train" -l out -d 'The file to write' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from train" -l name -d 'Name of the model: letters, digits, \'.\', \'_\', \'-\' [default: the name of the file of --out]' -r
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from train" -l cpu -d '`model name` of /proc/cpuinfo of the machine that was measured' -r
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from train" -l packages -d 'Processor packages of that machine' -r
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from train" -l threads -d 'Hardware threads of that machine [default: the most that are busy in the samples]' -r
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from train" -l socket -d 'jouled\'s socket [default: $JOULED_SOCKET, else /run/jouled/jouled.sock, else $XDG_RUNTIME_DIR/jouled/jouled.sock]' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from train" -l force -d 'Replace the file of --out where it exists'
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from train" -l json -d 'One JSON object: the model as it was written'
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from train" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from evaluate" -l samples -d 'CSV with the columns regime,seconds,busy,cycles,instructions,llc_misses,package_watts,dram_watts,platform_watts' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from evaluate" -l recording -d 'A recording of jouled (--record) on a machine with a meter; what ran is the process that ran most' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from evaluate" -l target -d 'Whose power' -r -f -a "package\t'All processor packages together'
dram\t'All memory that is metered apart'
platform\t'The whole machine'"
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from evaluate" -l leave-out -d 'Train on all samples but those of one part, and compare with that part, for each part' -r -f -a "regime\t'One regime; samples of the regime idle are spread over the parts, as every machine is seen at rest'
every-regime\t'One regime, idle as well: what is said of a machine that was never seen at rest'
workload\t'One workload at all its frequencies: the part of the regime before @'
frequency\t'All work at one frequency: the part of the regime after @'"
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from evaluate" -l threads -d 'Hardware threads of the machine [default: those of the model, or the most that are busy in the samples]' -r
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from evaluate" -l socket -d 'jouled\'s socket [default: $JOULED_SOCKET, else /run/jouled/jouled.sock, else $XDG_RUNTIME_DIR/jouled/jouled.sock]' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from evaluate" -l json -d 'One JSON object'
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from evaluate" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from list" -l folder -d 'A folder of models; may be given again [default: /etc/jouled/models.d, /var/lib/jouled-models and /usr/share/jouled/models, and what the running jouled learned]' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from list" -l trusted -d 'The folder of the public keys whose signatures count' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from list" -l socket -d 'jouled\'s socket [default: $JOULED_SOCKET, else /run/jouled/jouled.sock, else $XDG_RUNTIME_DIR/jouled/jouled.sock]' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from list" -l json -d 'A JSON array, one object for each file and each learned model'
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help'
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from show" -l socket -d 'jouled\'s socket [default: $JOULED_SOCKET, else /run/jouled/jouled.sock, else $XDG_RUNTIME_DIR/jouled/jouled.sock]' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from show" -l json -d 'The file itself, as this version writes it'
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from export" -l out -d 'The file to write' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from export" -l of -d 'With --kepler: whether the weights are of a node or of processes' -r -f -a "node\t'The power of the machine, with its rest: AbsPower'
processes\t'What each process adds to rest: DynPower'"
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from export" -l metrics -d 'With --kepler: the metrics that the exporter has, as Kepler groups them' -r -f -a "BPFOnly\t''
CounterOnly\t''
Basic\t''"
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from export" -l socket -d 'jouled\'s socket [default: $JOULED_SOCKET, else /run/jouled/jouled.sock, else $XDG_RUNTIME_DIR/jouled/jouled.sock]' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from export" -l force -d 'Replace the file of --out where it exists'
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from export" -l kepler -d 'As linear weights for Kepler\'s exporters; refused where they are wrong by more than 20 %'
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from export" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from import" -l folder -d 'The folder that it is copied to' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from import" -l trusted -d 'The folder of the public keys whose signatures count' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from import" -l socket -d 'jouled\'s socket [default: $JOULED_SOCKET, else /run/jouled/jouled.sock, else $XDG_RUNTIME_DIR/jouled/jouled.sock]' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from import" -l force -d 'Take a model of another machine, and replace one of the same name'
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from import" -s h -l help -d 'Print help'
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from sign" -l key -d 'The private key, as of joulectl key generate' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from sign" -l socket -d 'jouled\'s socket [default: $JOULED_SOCKET, else /run/jouled/jouled.sock, else $XDG_RUNTIME_DIR/jouled/jouled.sock]' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from sign" -l force -d 'Replace the signature where there is one'
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from sign" -s h -l help -d 'Print help'
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from verify" -l key -d 'A public key that counts, in place of those of --trusted; may be given again' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from verify" -l trusted -d 'The folder of the public keys whose signatures count' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from verify" -l socket -d 'jouled\'s socket [default: $JOULED_SOCKET, else /run/jouled/jouled.sock, else $XDG_RUNTIME_DIR/jouled/jouled.sock]' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from verify" -s h -l help -d 'Print help'
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from fetch" -l list -d 'Addresses, one a line: https://HOST/FILE.json, and behind it sha256=HEX where only one file will do, or signed where FILE.json.sig is to be fetched with it' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from fetch" -l folder -d 'The folder of the files; those that were fetched and are not in the list any more are removed' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from fetch" -l ca-file -d 'Certificates (PEM) that sign those of the servers, in place of the system\'s' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from fetch" -l trusted -d 'The folder of the public keys whose signatures count' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from fetch" -l changed -d 'A file that is made where a model came, changed or went' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from fetch" -l socket -d 'jouled\'s socket [default: $JOULED_SOCKET, else /run/jouled/jouled.sock, else $XDG_RUNTIME_DIR/jouled/jouled.sock]' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from fetch" -s h -l help -d 'Print help'
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from compare" -l samples -d 'CSV with the columns regime,seconds,busy,cycles,instructions,llc_misses,package_watts,dram_watts,platform_watts' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from compare" -l recording -d 'A recording of jouled (--record) on a machine with a meter; what ran is the process that ran most' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from compare" -l target -d 'Whose power' -r -f -a "package\t'All processor packages together'
dram\t'All memory that is metered apart'
platform\t'The whole machine'"
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from compare" -l socket -d 'jouled\'s socket [default: $JOULED_SOCKET, else /run/jouled/jouled.sock, else $XDG_RUNTIME_DIR/jouled/jouled.sock]' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from compare" -l json -d 'A JSON array, one object for each model, the best first'
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from compare" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from help" -f -a "prior" -d 'The power that a machine is expected to draw by load, from its description alone'
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from help" -f -a "train" -d 'A model from samples of a machine with a meter'
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from help" -f -a "evaluate" -d 'How wrong a model is on samples that it was not trained on'
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from help" -f -a "list" -d 'The models that are installed, and those that jouled learned'
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from help" -f -a "show" -d 'Weights, intervals and errors of one model'
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from help" -f -a "export" -d 'Writes a model to a file'
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from help" -f -a "import" -d 'Checks the file of a model and installs it'
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from help" -f -a "sign" -d 'Signs the file of a model: FILE.sig beside it'
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from help" -f -a "verify" -d 'Checks the signature of the file of a model'
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from help" -f -a "fetch" -d 'Gets files of models from the addresses of a list'
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from help" -f -a "compare" -d 'The errors of several models on the same samples'
complete -c joulectl -n "__fish_joulectl_using_subcommand model; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c joulectl -n "__fish_joulectl_using_subcommand guest; and not __fish_seen_subcommand_from acpi help" -l socket -d 'jouled\'s socket [default: $JOULED_SOCKET, else /run/jouled/jouled.sock, else $XDG_RUNTIME_DIR/jouled/jouled.sock]' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand guest; and not __fish_seen_subcommand_from acpi help" -s h -l help -d 'Print help'
complete -c joulectl -n "__fish_joulectl_using_subcommand guest; and not __fish_seen_subcommand_from acpi help" -f -a "acpi" -d 'The ACPI power meters of guests: all of them, or how to give one to a VM'
complete -c joulectl -n "__fish_joulectl_using_subcommand guest; and not __fish_seen_subcommand_from acpi help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c joulectl -n "__fish_joulectl_using_subcommand guest; and __fish_seen_subcommand_from acpi" -l socket -d 'jouled\'s socket [default: $JOULED_SOCKET, else /run/jouled/jouled.sock, else $XDG_RUNTIME_DIR/jouled/jouled.sock]' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand guest; and __fish_seen_subcommand_from acpi" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c joulectl -n "__fish_joulectl_using_subcommand guest; and __fish_seen_subcommand_from help" -f -a "acpi" -d 'The ACPI power meters of guests: all of them, or how to give one to a VM'
complete -c joulectl -n "__fish_joulectl_using_subcommand guest; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c joulectl -n "__fish_joulectl_using_subcommand key; and not __fish_seen_subcommand_from generate help" -l socket -d 'jouled\'s socket [default: $JOULED_SOCKET, else /run/jouled/jouled.sock, else $XDG_RUNTIME_DIR/jouled/jouled.sock]' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand key; and not __fish_seen_subcommand_from generate help" -s h -l help -d 'Print help'
complete -c joulectl -n "__fish_joulectl_using_subcommand key; and not __fish_seen_subcommand_from generate help" -f -a "generate" -d 'Makes a key that signs files (Ed25519), and the public key that checks what it signed'
complete -c joulectl -n "__fish_joulectl_using_subcommand key; and not __fish_seen_subcommand_from generate help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c joulectl -n "__fish_joulectl_using_subcommand key; and __fish_seen_subcommand_from generate" -l out -d 'The file of the private key (mode 0600); the public one is beside it, with .pub behind the name' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand key; and __fish_seen_subcommand_from generate" -l socket -d 'jouled\'s socket [default: $JOULED_SOCKET, else /run/jouled/jouled.sock, else $XDG_RUNTIME_DIR/jouled/jouled.sock]' -r -F
complete -c joulectl -n "__fish_joulectl_using_subcommand key; and __fish_seen_subcommand_from generate" -s h -l help -d 'Print help'
complete -c joulectl -n "__fish_joulectl_using_subcommand key; and __fish_seen_subcommand_from help" -f -a "generate" -d 'Makes a key that signs files (Ed25519), and the public key that checks what it signed'
complete -c joulectl -n "__fish_joulectl_using_subcommand key; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c joulectl -n "__fish_joulectl_using_subcommand help; and not __fish_seen_subcommand_from status meters top list report history fetch model guest key help" -f -a "status" -d 'What is measured: sources and their state, domains, idle floor, losses, jouled\'s own cost'
complete -c joulectl -n "__fish_joulectl_using_subcommand help; and not __fish_seen_subcommand_from status meters top list report history fetch model guest key help" -f -a "meters" -d 'Every meter of this machine: what it covers and contains, what it is used for, or why it is not used'
complete -c joulectl -n "__fish_joulectl_using_subcommand help; and not __fish_seen_subcommand_from status meters top list report history fetch model guest key help" -f -a "top" -d 'A live view: meters and their health, then units, containers, VMs and processes'
complete -c joulectl -n "__fish_joulectl_using_subcommand help; and not __fish_seen_subcommand_from status meters top list report history fetch model guest key help" -f -a "list" -d 'A table of all entities of one kind, with sums that add up to the node\'s energy'
complete -c joulectl -n "__fish_joulectl_using_subcommand help; and not __fish_seen_subcommand_from status meters top list report history fetch model guest key help" -f -a "report" -d 'What was drawn between two times, by entity, in sums that add up to the node\'s energy'
complete -c joulectl -n "__fish_joulectl_using_subcommand help; and not __fish_seen_subcommand_from status meters top list report history fetch model guest key help" -f -a "history" -d 'The energy of one entity over time, as a plot'
complete -c joulectl -n "__fish_joulectl_using_subcommand help; and not __fish_seen_subcommand_from status meters top list report history fetch model guest key help" -f -a "fetch" -d 'Gets carbon intensities or prices from a service, into a file that jouled watches'
complete -c joulectl -n "__fish_joulectl_using_subcommand help; and not __fish_seen_subcommand_from status meters top list report history fetch model guest key help" -f -a "model" -d 'Power models: what a machine without a meter draws, and how well that is known'
complete -c joulectl -n "__fish_joulectl_using_subcommand help; and not __fish_seen_subcommand_from status meters top list report history fetch model guest key help" -f -a "guest" -d 'Power meters in guests that need no agent'
complete -c joulectl -n "__fish_joulectl_using_subcommand help; and not __fish_seen_subcommand_from status meters top list report history fetch model guest key help" -f -a "key" -d 'Keys that sign files'
complete -c joulectl -n "__fish_joulectl_using_subcommand help; and not __fish_seen_subcommand_from status meters top list report history fetch model guest key help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c joulectl -n "__fish_joulectl_using_subcommand help; and __fish_seen_subcommand_from meters" -f -a "compare" -d 'A meter of the whole machine (a smart plug, a PDU, a BMC) beside what jouled measures, as a line and a plot'
complete -c joulectl -n "__fish_joulectl_using_subcommand help; and __fish_seen_subcommand_from report" -f -a "year" -d 'The yearly figures of this machine that operators of data centres report (Delegated Regulation (EU) 2024/1364, Annexes II and III): E_IT with its quality and gaps. Figures that a machine cannot know are listed as not known'
complete -c joulectl -n "__fish_joulectl_using_subcommand help; and __fish_seen_subcommand_from report" -f -a "statement" -d 'The statement of an entity, also of one that has ended: its times, energy by zone and mode, carbon, cost, and the quality of these numbers'
complete -c joulectl -n "__fish_joulectl_using_subcommand help; and __fish_seen_subcommand_from report" -f -a "verify" -d 'Checks the signature of a file with a report: who signed it, when, and of which host it is. Exit code 0: it is right, and of a trusted key. One changed byte, also a blank or the end of a line, makes it wrong: then nothing in the file can be believed'
complete -c joulectl -n "__fish_joulectl_using_subcommand help; and __fish_seen_subcommand_from model" -f -a "prior" -d 'The power that a machine is expected to draw by load, from its description alone'
complete -c joulectl -n "__fish_joulectl_using_subcommand help; and __fish_seen_subcommand_from model" -f -a "train" -d 'A model from samples of a machine with a meter'
complete -c joulectl -n "__fish_joulectl_using_subcommand help; and __fish_seen_subcommand_from model" -f -a "evaluate" -d 'How wrong a model is on samples that it was not trained on'
complete -c joulectl -n "__fish_joulectl_using_subcommand help; and __fish_seen_subcommand_from model" -f -a "list" -d 'The models that are installed, and those that jouled learned'
complete -c joulectl -n "__fish_joulectl_using_subcommand help; and __fish_seen_subcommand_from model" -f -a "show" -d 'Weights, intervals and errors of one model'
complete -c joulectl -n "__fish_joulectl_using_subcommand help; and __fish_seen_subcommand_from model" -f -a "export" -d 'Writes a model to a file'
complete -c joulectl -n "__fish_joulectl_using_subcommand help; and __fish_seen_subcommand_from model" -f -a "import" -d 'Checks the file of a model and installs it'
complete -c joulectl -n "__fish_joulectl_using_subcommand help; and __fish_seen_subcommand_from model" -f -a "sign" -d 'Signs the file of a model: FILE.sig beside it'
complete -c joulectl -n "__fish_joulectl_using_subcommand help; and __fish_seen_subcommand_from model" -f -a "verify" -d 'Checks the signature of the file of a model'
complete -c joulectl -n "__fish_joulectl_using_subcommand help; and __fish_seen_subcommand_from model" -f -a "fetch" -d 'Gets files of models from the addresses of a list'
complete -c joulectl -n "__fish_joulectl_using_subcommand help; and __fish_seen_subcommand_from model" -f -a "compare" -d 'The errors of several models on the same samples'
complete -c joulectl -n "__fish_joulectl_using_subcommand help; and __fish_seen_subcommand_from guest" -f -a "acpi" -d 'The ACPI power meters of guests: all of them, or how to give one to a VM'
complete -c joulectl -n "__fish_joulectl_using_subcommand help; and __fish_seen_subcommand_from key" -f -a "generate" -d 'Makes a key that signs files (Ed25519), and the public key that checks what it signed'
