//! How the process ends: one number for each thing a script may want to tell apart.

use std::process::ExitCode;

use mainstay_core::problem::Code;

/// The exit codes of every command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Exit {
    /// Done.
    Done,
    /// Failed: a check with a failure, a 5xx not listed below, anything else.
    Failed,
    /// Unknown flag, verb or filter; a reason is missing.
    Usage,
    /// No such thing: 404, 410.
    NotFound,
    /// Conflict: 409, 412; a port or directory in use.
    Conflict,
    /// Not known or not allowed: 401, 403; a secret others could read.
    NotAllowed,
    /// No connection, or 429, 502, 503, 504 after the one retry.
    Unavailable,
    /// Invalid content: 400, 422; configuration, rule, policy.
    Invalid,
    /// A change was sent and no answer came. Unknown never becomes done or failed.
    Unknown,
    /// Changes are pending; only with `--exit-code`.
    Pending,
    /// Interrupted.
    Interrupted,
}

impl Exit {
    /// The number.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Conflict => 4,
            Self::NotAllowed => 5,
            Self::Unavailable => 6,
            Self::Invalid => 7,
            Self::Unknown => 8,
            Self::Pending => 10,
            Self::Interrupted => 130,
        }
    }

    /// What an HTTP answer of the control plane means for the command that asked.
    pub const fn of_status(status: u16) -> Self {
        match status {
            200..=399 => Self::Done,
            404 | 410 => Self::NotFound,
            409 | 412 => Self::Conflict,
            401 | 403 => Self::NotAllowed,
            429 | 502 | 503 | 504 => Self::Unavailable,
            400 | 422 => Self::Invalid,
            _ => Self::Failed,
        }
    }

    /// How a command ends that stumbles over `code` itself, not in an answer.
    pub const fn of_code(code: Code) -> Self {
        match code {
            Code::Usage | Code::DevNotLoopback | Code::ReasonRequired | Code::KeyringOpen => {
                Self::Usage
            }
            Code::PortInUse | Code::DataDirInUse | Code::KeyringDiffers => Self::Conflict,
            Code::ControlUnreachable | Code::AppNotHealthy => Self::Unavailable,
            Code::ConfigUnknownKey
            | Code::ConfigWrongType
            | Code::ConfigOutOfRange
            | Code::ConfigDuplicateKey
            | Code::ConfigFileMissing
            | Code::ConfigSyntax
            | Code::ConfigUnknownReference
            | Code::ConfigContradiction
            | Code::RouteAmbiguous => Self::Invalid,
            other => Self::of_status(other.http()),
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_of_the_table_has_its_number() {
        let cases: [(&[u16], u8); 8] = [
            (&[200, 204], 0),
            (&[500, 501, 418, 421], 1),
            (&[404, 410], 3),
            (&[409, 412], 4),
            (&[401, 403], 5),
            (&[429, 502, 503, 504], 6),
            (&[400, 422], 7),
            (&[], 8),
        ];
        for (statuses, want) in cases {
            for &status in statuses {
                assert_eq!(Exit::of_status(status).code(), want, "{status}");
            }
        }
    }

    #[test]
    fn every_code_of_the_command_line_has_its_number() {
        let cases = [
            (Code::Usage, 2),
            (Code::ReasonRequired, 2),
            (Code::DevNotLoopback, 2),
            (Code::PortInUse, 4),
            (Code::DataDirInUse, 4),
            (Code::KeyringOpen, 2),
            (Code::KeyringDiffers, 4),
            (Code::CredentialMissing, 5),
            (Code::ControlUnreachable, 6),
            (Code::ConfigUnknownKey, 7),
            (Code::ConfigWrongType, 7),
            (Code::ConfigOutOfRange, 7),
            (Code::ConfigDuplicateKey, 7),
            (Code::ConfigFileMissing, 7),
            (Code::ConfigSyntax, 7),
            (Code::NotFound, 3),
            (Code::Internal, 1),
        ];
        for (code, want) in cases {
            assert_eq!(Exit::of_code(code).code(), want, "{code}");
        }
        assert_eq!(Exit::Unknown.code(), 8);
        assert_eq!(Exit::Pending.code(), 10);
        assert_eq!(Exit::Interrupted.code(), 130);
    }
}
