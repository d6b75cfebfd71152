// An ACPI power meter of the whole machine, as servers have it: for Linux's acpi_power_meter. Its value is set from outside.
//
// 32 bits of QEMU's pc-testdev, at I/O port 0xE0, are what it measures now, in mW. 0, as after a reset, stands for 137 W; all ones, as
// without the device, for "cannot be measured", which the driver reports as ENODATA.
DefinitionBlock ("", "SSDT", 2, "JOULED", "PWRMETER", 1)
{
    Scope (\_SB)
    {
        Device (PMTR)
        {
            Name (_HID, "ACPI000D")
            Name (_UID, 1)
            Name (TIME, 1000)

            OperationRegion (SCRA, SystemIO, 0xE0, 4)
            Field (SCRA, DWordAcc, NoLock, Preserve)
            {
                NOWW, 32
            }

            Method (_STA, 0) { Return (0x0F) }

            // Capabilities: exactly these fourteen.
            Method (_PMC, 0)
            {
                Return (Package ()
                {
                    0x01,           // it measures; no trip points, no cap
                    0x00,           // in mW
                    0x00,           // what goes in
                    98000,          // within 2 %: in thousandths of a percent
                    250,            // sampled so often, ms; the driver keeps a value so long
                    1000, 60000,    // averaged over at least and at most, ms
                    0,              // hysteresis
                    0,              // no cap
                    0, 0,           // of no range
                    "PM-1", "42", "jouled rig"
                })
            }

            Method (_PMM, 0)
            {
                Local0 = NOWW
                If (Local0 == 0)
                {
                    Return (137000)
                }
                Return (Local0)
            }

            // Averaging interval, ms.
            Method (_GAI, 0) { Return (TIME) }
            Method (_PAI, 1)
            {
                TIME = Arg0
                Return (0)
            }

            // What it measures: all that there is.
            Method (_PMD, 0) { Return (Package () { \_SB }) }
        }
    }
}
