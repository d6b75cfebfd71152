//! IPMI completion codes and texts for them: what a BMC answers instead of a value. Pure.

/// Completion codes (IPMI 2.0, table 5-2).
pub mod cc {
    /// The BMC is busy.
    pub const BUSY: u8 = 0xC0;
    /// Unknown command.
    pub const INVALID_COMMAND: u8 = 0xC1;
    /// Command not valid for this logical unit.
    pub const INVALID_FOR_LUN: u8 = 0xC2;
    /// Timeout inside the BMC.
    pub const TIMEOUT: u8 = 0xC3;
    /// The reservation was cancelled, or is invalid.
    pub const RESERVATION_LOST: u8 = 0xC5;
    /// Invalid length of the request.
    pub const LENGTH: u8 = 0xC7;
    /// The request exceeds the length limit.
    pub const LENGTH_LIMIT: u8 = 0xC8;
    /// A parameter is out of range.
    pub const OUT_OF_RANGE: u8 = 0xC9;
    /// Too many bytes requested at once.
    pub const TOO_MANY_BYTES: u8 = 0xCA;
    /// No such sensor or record.
    pub const NOT_PRESENT: u8 = 0xCB;
    /// Insufficient privilege of the session.
    pub const PRIVILEGE: u8 = 0xD4;
    /// A parameter is not supported in the present state.
    pub const WRONG_STATE: u8 = 0xD5;
}

/// What a code means for a power reading, to follow `the BMC`.
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

/// Whether the condition is likely to pass without intervention: then the source is degraded, and has not failed.
pub const fn passes(code: u8) -> bool {
    matches!(code, 0x80 | cc::BUSY | cc::TIMEOUT | 0xC4 | cc::RESERVATION_LOST | 0xCE..=0xD2 | cc::WRONG_STATE)
}

/// Whether the BMC does not implement the command.
pub const fn unknown(code: u8) -> bool {
    matches!(code, cc::INVALID_COMMAND | cc::INVALID_FOR_LUN)
}
