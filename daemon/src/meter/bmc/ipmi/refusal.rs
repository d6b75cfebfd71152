//! Texts for a failed login: the errors of ipmi-rs in an operator's terms. Pure.

use super::lan::io_words;
use ipmi_rs::IpmiError;
use ipmi_rs::rmcp::{
    ActivationError, ParseSessionResponseError, RakpMessage2ParseError, RakpMessage4ErrorStatusCode,
    RakpMessage4ParseError, RmcpIpmiError, RmcpIpmiReceiveError, V1_5ActivationError, V2_0ActivationError,
};
use std::io::{self, ErrorKind};
use std::time::Duration;

/// The text for an error, to follow `ADDRESS: `.
pub fn words(error: &ActivationError, timeout: Duration) -> String {
    match error {
        ActivationError::BindSocket(error) => format!("no socket: {error}"),
        ActivationError::PingSend(error) => format!("cannot be asked: {error}"),
        ActivationError::PongReceive(error) => {
            io(error, timeout, "is it the right address, and IPMI over LAN switched on?")
        }
        ActivationError::PongRead | ActivationError::RmcpError(_) => "what answers there is no BMC".into(),
        ActivationError::IpmiNotSupported => "it speaks RMCP, and not IPMI".into(),
        ActivationError::NoSupportedIpmiLANVersions => "it offers no version of IPMI over LAN".into(),
        ActivationError::GetChannelAuthenticationCapabilities(IpmiError::Connection(error)) => {
            connection(error, timeout)
        }
        ActivationError::GetChannelAuthenticationCapabilities(error) => {
            format!("a wrong answer to the first question ({})", cut(error))
        }
        ActivationError::V1_5(V1_5ActivationError::PasswordTooLong) => {
            "it speaks IPMI 1.5 alone, which does not keep a password secret: not used".into()
        }
        ActivationError::V1_5(error) => format!("IPMI 1.5, which is not used ({})", cut(error)),
        ActivationError::V2_0(error) => v2(error, timeout),
    }
}

/// Whether the BMC refused this user and password: it may count such logins and lock the user.
pub fn is_of_the_user(error: &ActivationError) -> bool {
    use V2_0ActivationError as E;
    matches!(
        error,
        ActivationError::V2_0(
            E::RakpMessage2Parse(
                RakpMessage2ParseError::NotEnoughData | RakpMessage2ParseError::InvalidRemoteConsoleSessionId
            ) | E::ServerAuthenticationFailed
                | E::RakpMessage4Parse(RakpMessage4ParseError::ErrorStatusCode(
                    RakpMessage4ErrorStatusCode::InvalidIntegrityCheckValue
                ))
                | E::RakpMessage4InvalidIntegrityCheckValue
        )
    )
}

fn v2(error: &V2_0ActivationError, timeout: Duration) -> String {
    use V2_0ActivationError as E;
    match error {
        E::OpenSessionResponseReceive(error) | E::RakpMessage2Receive(error) | E::RakpMessage4Receive(error) => {
            receive(error, timeout)
        }
        E::OpenSessionResponseParse(ParseSessionResponseError::HaveErrorCode(code)) => match format!("{code:?}") {
            text if text.contains("InsufficientResources") => "it has no session left: others have to end theirs".into(),
            text if text.contains("Algorithm") || text.contains("Suite") || text.contains("Payload") => {
                "it does not offer cipher suite 3 (HMAC-SHA1, AES-128), which is the one that is spoken here: allow it in the BMC"
                    .into()
            }
            text => format!("it opens no session ({text})"),
        },
        // ipmi-rs looks for the reason in the wrong byte, so these reasons cannot be told apart.
        E::RakpMessage2Parse(RakpMessage2ParseError::NotEnoughData | RakpMessage2ParseError::InvalidRemoteConsoleSessionId) => {
            "it refuses the user name, or the user may not log in as administrator, which is asked for at log-in".into()
        }
        E::ServerAuthenticationFailed => "wrong password, or no such user".into(),
        E::RakpMessage4Parse(RakpMessage4ParseError::ErrorStatusCode(RakpMessage4ErrorStatusCode::InvalidIntegrityCheckValue)) => {
            "wrong password, or no such user".into()
        }
        E::RakpMessage4InvalidIntegrityCheckValue => {
            "it cannot prove that it knows the password, or has a key (Kg) of its own".into()
        }
        other => format!("the log-in goes wrong ({})", cut(other)),
    }
}

fn connection(error: &RmcpIpmiError, timeout: Duration) -> String {
    match error {
        RmcpIpmiError::Receive(error) => receive(error, timeout),
        other => format!("the log-in goes wrong ({})", cut(other)),
    }
}

fn receive(error: &RmcpIpmiReceiveError, timeout: Duration) -> String {
    match error {
        RmcpIpmiReceiveError::Io(error) => io(error, timeout, "it answers a ping, and not the log-in"),
        other => format!("an answer that cannot be understood ({})", cut(other)),
    }
}

fn io(error: &io::Error, timeout: Duration, hint: &str) -> String {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => format!("no answer within {timeout:?}: {hint}"),
        _ => io_words(error),
    }
}

/// Codes and names of ipmi-rs itself, never text of the BMC.
fn cut(error: &impl std::fmt::Debug) -> String {
    format!("{error:?}").chars().take(120).collect()
}
