/*
 * The power of this VM as an ACPI power meter (ACPI 6.5, 10.4), for the firmware tables of a guest: docs/acpi-power-meter.md.
 * It reads the page that the host's jouled writes for this VM. The page is BAR 2 of an ivshmem-plain device in a fixed slot.
 *
 * This is the source to review. jouled makes the same bytes itself (table.rs), with the slot of the configuration; a test compiles
 * this file with iasl and compares.
 */
DefinitionBlock ("", "SSDT", 2, "JOULED", "VMPOWER", 0x00000001)
{
    External (\_SB.PCI0, DeviceObj)

    Scope (\_SB.PCI0)
    {
        Device (JOUL)
        {
            Name (_ADR, 0x00180000)
            OperationRegion (CONF, PCI_Config, 0x00, 0x20)
            Field (CONF, DWordAcc, NoLock, Preserve)
            {
                IDEN, 32,
                Offset (0x18),
                BARL, 32,
                BARH, 32
            }
            Field (CONF, WordAcc, NoLock, Preserve)
            {
                Offset (0x04),
                COMD, 16
            }

            // The physical address of the page; 0: there is no such device, or it has no address.
            Method (BASE, 0, Serialized)
            {
                If ((IDEN != 0x11101AF4))
                {
                    Return (Zero)
                }

                // Firmware need not enable the memory of a device that has no driver.
                If (((COMD & 0x02) == Zero))
                {
                    COMD = (COMD | 0x02)
                }

                Return (((BARL & 0xFFFFFFF0) | (BARH << 0x20)))
            }
        }
    }

    Scope (\_SB)
    {
        Device (JPWR)
        {
            Name (_HID, "ACPI000D")
            Name (_UID, "jouled")

            // What the last TAKE read: the epoch (its end, seconds), the power (mW) and the period (ms).
            Name (EPOC, Zero)
            Name (POWR, 0xFFFFFFFF)
            Name (PERI, 0x2710)
            // The epoch that the last _PMM saw, when it first saw it (Timer, 100 ns), and whether it was fresh then.
            Name (SEEN, Zero)
            Name (WHEN, Zero)
            Name (FRSH, Zero)
            // Measures; in mW; input power; 80 %: shares between VMs may be wrong by so much; the times are set by _PMC.
            Name (CAPS, Package (0x0E)
            {
                One, Zero, Zero, 0x00013880, 0x03E8, 0x2710, 0x2710, Zero, Zero, Zero, Zero, "jouled", "-", "jouled"
            })

            // Reads the page; 1: what it read belongs together.
            Method (TAKE, 0, Serialized)
            {
                Local0 = \_SB.PCI0.JOUL.BASE ()
                If ((Local0 == Zero))
                {
                    Return (Zero)
                }

                OperationRegion (PAGE, SystemMemory, Local0, 0x18)
                Field (PAGE, DWordAcc, NoLock, Preserve)
                {
                    MAGC, 32,
                    VERS, 32,
                    BEGN, 32,
                    MILW, 32,
                    PERD, 32,
                    ENDE, 32
                }

                If (((MAGC != 0x4C554F4A) || (VERS != One)))
                {
                    Return (Zero)
                }

                // jouled writes BEGN, then the values, then ENDE: where both are the same epoch, nothing was written in between.
                Local1 = Zero
                While ((Local1 < 0x08))
                {
                    Local2 = ENDE
                    POWR = MILW
                    PERI = PERD
                    If ((BEGN == Local2))
                    {
                        EPOC = Local2
                        Return (One)
                    }

                    Local1++
                }

                Return (Zero)
            }

            Method (_PMC, 0, Serialized)
            {
                TAKE ()
                // The system may keep a value for a tenth of a period, and for a second at most: it misses no epoch then.
                Local0 = (PERI / 0x0A)
                If ((Local0 > 0x03E8))
                {
                    Local0 = 0x03E8
                }

                CAPS [0x04] = Local0
                CAPS [0x05] = PERI
                CAPS [0x06] = PERI
                Return (CAPS)
            }

            // The mean power of the last epoch in mW; all ones: it cannot be measured.
            Method (_PMM, 0, Serialized)
            {
                If ((TAKE () == Zero))
                {
                    Return (0xFFFFFFFF)
                }

                // A page is too old three periods after it was written, and 30 s at least.
                Local0 = Timer
                Local1 = (PERI * 0x7530)
                If ((Local1 < 0x11E1A300))
                {
                    Local1 = 0x11E1A300
                }

                If ((EPOC != SEEN))
                {
                    // It was written since. It may have been written long ago: only where the page's clock went on as this one did
                    // is it fresh. The first look cannot say, so it waits for the next epoch.
                    Local2 = Zero
                    If ((EPOC > SEEN))
                    {
                        Local2 = ((EPOC - SEEN) * 0x00989680)
                    }

                    FRSH = ((SEEN != Zero) && ((Local0 - WHEN) <= (Local1 + Local2)))
                    SEEN = EPOC
                    WHEN = Local0
                }
                ElseIf (((Local0 - WHEN) > Local1))
                {
                    FRSH = Zero
                }

                If ((FRSH == Zero))
                {
                    Return (0xFFFFFFFF)
                }

                Return (POWR)
            }

            // The averaging interval is the period of the profile, and cannot be set to another one.
            Method (_GAI, 0, Serialized)
            {
                TAKE ()
                Return (PERI)
            }

            Method (_PAI, 1, Serialized)
            {
                Return ((Arg0 != PERI))
            }

            Method (_PMD, 0, NotSerialized)
            {
                Return (Package (0x01)
                {
                    \_SB
                })
            }
        }
    }
}
