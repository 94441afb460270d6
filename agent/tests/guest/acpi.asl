// A table that the host adds, with code that reads and writes the guest's memory.
// What it does it tells on the debug console: "<A=0000002a>".
DefinitionBlock ("acpi.aml", "SSDT", 2, "ATTACK", "MEMORY", 1)
{
    OperationRegion (KDBP, SystemIO, 0x0402, One)
    Field (KDBP, ByteAcc, NoLock, Preserve) { KDBG, 8 }

    // The memory map calls the first usable, the second reserved.
    OperationRegion (USED, SystemMemory, 0x10000000, 0x1000)
    Field (USED, DWordAcc, NoLock, Preserve) { USER, 32, USEW, 32 }
    OperationRegion (RSVD, SystemMemory, 0x1FFF8000, 0x1000)
    Field (RSVD, DWordAcc, NoLock, Preserve) { RSVW, 32 }

    Method (HEX1, 1, Serialized)
    {
        Local0 = Arg0 & 0x0F
        If (Local0 < 10) { KDBG = Local0 + 0x30 } Else { KDBG = Local0 + 0x57 }
    }

    Method (TELL, 2, Serialized)
    {
        KDBG = 0x3C
        KDBG = Arg0
        KDBG = 0x3D
        Local1 = 28
        While (One)
        {
            HEX1 (Arg1 >> Local1)
            If (Local1 == 0) { Break }
            Local1 -= 4
        }
        KDBG = 0x3E
    }

    // A device each: code that is refused ends the method, and the next is tried all the same.
    Scope (\_SB)
    {
        Device (ATK0) { Name (_HID, "KCC00000") Method (_INI, 0, Serialized) { TELL (0x41, 42) } }
        Device (ATK1) { Name (_HID, "KCC00001") Method (_INI, 0, Serialized) { TELL (0x42, USER) } }
        Device (ATK2) { Name (_HID, "KCC00002") Method (_INI, 0, Serialized) { USEW = 0x64616221 TELL (0x43, 0) } }
        Device (ATK3) { Name (_HID, "KCC00003") Method (_INI, 0, Serialized) { RSVW = 0x64616221 TELL (0x44, 0) } }
        Device (ATK4) { Name (_HID, "KCC00004") Method (_INI, 0, Serialized) { TELL (0x45, RSVW) } }
        Device (ATK5) { Name (_HID, "KCC00005") Method (_INI, 0, Serialized) { TELL (0x5A, 42) } }
    }
}
