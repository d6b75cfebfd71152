//! Words for completion codes: what a BMC answers instead of a value. Pure.

/// Completion codes (IPMI 2.0, table 5-2).
pub mod cc {
    /// The BMC has no time now.
    pub const BUSY: u8 = 0xC0;
    /// There is no such command.
    pub const INVALID_COMMAND: u8 = 0xC1;
    /// Not for this logical unit.
    pub const INVALID_FOR_LUN: u8 = 0xC2;
    /// The BMC itself waited in vain.
    pub const TIMEOUT: u8 = 0xC3;
    /// A reservation is not good any more.
    pub const RESERVATION_LOST: u8 = 0xC5;
    /// The request has a wrong length.
    pub const LENGTH: u8 = 0xC7;
    /// The request is too long.
    pub const LENGTH_LIMIT: u8 = 0xC8;
    /// A parameter is out of range.
    pub const OUT_OF_RANGE: u8 = 0xC9;
    /// So many bytes cannot be given at once.
    pub const TOO_MANY_BYTES: u8 = 0xCA;
    /// There is no such sensor or record.
    pub const NOT_PRESENT: u8 = 0xCB;
    /// The session may not do this.
    pub const PRIVILEGE: u8 = 0xD4;
    /// A parameter is not supported in the present state.
    pub const WRONG_STATE: u8 = 0xD5;
}

/// What a code means for somebody who wants a power, `the BMC …`.
pub fn words(code: u8) -> String {
    let words = match code {
        0x80 => "has no power reading now (80h)",
        cc::BUSY => "is busy (C0h): it is asked again later",
        cc::INVALID_COMMAND | cc::INVALID_FOR_LUN => return format!("does not know this command ({code:02X}h)"),
        cc::TIMEOUT => "took too long itself (C3h): it is asked again later",
        0xC4 => "is out of space (C4h)",
        cc::RESERVATION_LOST => "took back its reservation (C5h)",
        0xC6..=cc::LENGTH_LIMIT => return format!("finds the request too short or too long ({code:02X}h)"),
        cc::OUT_OF_RANGE => "finds a parameter out of range (C9h)",
        cc::TOO_MANY_BYTES => "cannot give so much at once (CAh)",
        cc::NOT_PRESENT => "has no such sensor or record (CBh)",
        0xCC => "finds an invalid field in the request (CCh)",
        0xCD => "does not allow this command for this sensor (CDh)",
        0xCE => "has no answer ready (CEh)",
        0xCF => "takes the request for a duplicate (CFh)",
        0xD0 => "is renewing its sensor records (D0h)",
        0xD1 => "is renewing its firmware (D1h)",
        0xD2 => "is starting (D2h)",
        0xD3 => "does not reach the part that was asked (D3h)",
        cc::PRIVILEGE => "does not allow this at the session's privilege (D4h)",
        cc::WRONG_STATE => "cannot do this in its present state (D5h): power measurement may be off",
        0xD6 => "has this function switched off (D6h)",
        0xFF => "gives no reason (FFh)",
        0x01..=0x7E => return format!("answers with its maker's own code {code:02X}h"),
        _ => return format!("answers with code {code:02X}h"),
    };
    words.to_owned()
}

/// Whether it may go by itself: the source gives less than it could, and has not failed.
pub const fn passes(code: u8) -> bool {
    matches!(code, 0x80 | cc::BUSY | cc::TIMEOUT | 0xC4 | cc::RESERVATION_LOST | 0xCE..=0xD2 | cc::WRONG_STATE)
}

/// Whether the BMC does not have the command at all.
pub const fn unknown(code: u8) -> bool {
    matches!(code, cc::INVALID_COMMAND | cc::INVALID_FOR_LUN)
}
