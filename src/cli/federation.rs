//! `grantd federation`: tests tokens of trusted issuers against the rules of clients.

pub(super) mod keys;
pub(super) mod sample;

use std::time::UNIX_EPOCH;

use anyhow::bail;
use clap::Subcommand;

use super::Shell;
use super::open::Purpose;
use super::token::token_from_stdin;
use crate::admin::Admin;
use crate::admin::AdminError;
use crate::admin::federation_test::{TokenTest, WorkloadToken};
use crate::model::client_id::ClientId;
use crate::model::time::UnixTime;
use crate::telemetry::printable::one_line;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Read a token from stdin, and print the rule that matches or the condition that fails; issues and spends nothing
    Test {
        /// Test the rules of this client alone, as a request with its `client_id`
        #[arg(long, value_name = "ID")]
        client: Option<ClientId>,
        /// Time of the test, in RFC 3339 or in seconds since 1970 [default: now]
        #[arg(long, value_name = "TIME", value_parser = time)]
        at: Option<UnixTime>,
    },
}

impl Command {
    pub(super) async fn run(self, shell: &Shell) -> anyhow::Result<()> {
        let Self::Test { client, at } = self;
        let admin = shell.admin(Purpose::Read).await?;
        let token = token_from_stdin()?;
        let tested = test(shell, &admin, &token, client.as_ref(), at.unwrap_or_else(|| admin.now())).await?;
        shell.print(&tested.document(), || text(&tested))?;
        match tested.outcome {
            Ok(_) => Ok(()),
            Err(fault) => bail!("the token authenticates no client: {}", fault.reason.as_str()),
        }
    }
}

async fn test(
    shell: &Shell,
    admin: &Admin,
    text: &str,
    client: Option<&ClientId>,
    at: UnixTime,
) -> anyhow::Result<TokenTest> {
    let token = match WorkloadToken::parse(text) {
        Ok(token) => token,
        Err(fault) => return Ok(TokenTest::unreadable(fault)),
    };
    let issuer = match admin.trusted_issuer(token.issuer()).await {
        Ok(details) => details.issuer,
        Err(AdminError::NoSuchIssuer(_)) => return Ok(TokenTest::unknown_issuer(&token)),
        Err(error) => return Err(error.into()),
    };
    match keys::fetch(&shell.config()?, &issuer).await {
        Ok(found) => Ok(admin.test_token(&token, &issuer, &found.keys, client, at).await?),
        Err(fault) => Ok(TokenTest::no_keys(&token, &format!("{fault:#}"))),
    }
}

fn text(tested: &TokenTest) -> String {
    let mut text = String::new();
    if let Some(issuer) = &tested.issuer {
        text += &format!("issuer   {}\n", one_line(issuer));
    }
    if let Some(subject) = &tested.subject {
        text += &format!("subject  {}\n", one_line(subject));
    }
    match &tested.outcome {
        Ok(found) => {
            let label = if found.label.is_empty() { String::new() } else { format!("  {}", one_line(&found.label)) };
            text += &format!("client   {}\nrule     {}{label}\n", found.client_id, found.rule_id);
            text += &format!("scope    {}\nallowed  {}\n", found.scope, found.allowed);
            if found.only_grant {
                text += "door     the grant jwt-bearer alone: aud is the token endpoint\n";
            }
        }
        Err(fault) => text += &format!("REFUSED  {}\nreason   {}\n", one_line(&fault.condition), fault.reason.as_str()),
    }
    if tested.outcome.is_ok() {
        return text;
    }
    for (stored, mismatch) in tested.mismatches.iter().take(SHOWN) {
        let (client, rule) = (&stored.client_id, &stored.rule.rule_id);
        text += &format!("no match client {}, rule {rule}: {}\n", one_line(client), one_line(&mismatch.to_string()));
    }
    match tested.mismatches.len().saturating_sub(SHOWN) {
        0 => text,
        more => format!("{text}no match {more} more rules\n"),
    }
}

/// Reads a time in RFC 3339 or in seconds.
fn time(text: &str) -> Result<UnixTime, String> {
    let wrong = || "write 2026-11-28T21:00:00Z, or seconds since 1970".to_owned();
    if let Ok(seconds) = text.parse::<u32>() {
        return Ok(UnixTime(seconds.into()));
    }
    // RFC 3339 section 5.6: the offset is Z, or hours and minutes behind a sign.
    let (local, offset) = match text.strip_suffix(['Z', 'z']) {
        Some(local) => (local, 0),
        None => {
            let (local, offset) = text.split_at_checked(text.len().saturating_sub(6)).ok_or_else(wrong)?;
            (local, minutes(offset).ok_or_else(wrong)?)
        }
    };
    let moment = humantime::parse_rfc3339(&format!("{}Z", local.replace('t', "T"))).map_err(|_| wrong())?;
    let seconds = moment.duration_since(UNIX_EPOCH).map_err(|_| wrong())?.as_secs();
    Ok(UnixTime(i64::try_from(seconds).map_err(|_| wrong())? - offset * 60))
}

/// The minutes of an offset such as `+02:00`.
fn minutes(offset: &str) -> Option<i64> {
    let (sign, rest) = match offset.strip_prefix('+') {
        Some(rest) => (1, rest),
        None => (-1, offset.strip_prefix('-')?),
    };
    let (hours, minutes) = rest.split_once(':')?;
    // A text that is no offset makes the whole time unreadable, which the caller tells.
    let number = |text: &str, most| text.parse::<u8>().ok().filter(|number| text.len() == 2 && *number <= most);
    Some(sign * (i64::from(number(hours, 23)?) * 60 + i64::from(number(minutes, 59)?)))
}

/// Number of rules that are shown.
const SHOWN: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_rfc_3339_or_seconds() {
        for text in [
            "1795903200",
            "2026-11-28T22:00:00Z",
            "2026-11-28t22:00:00z",
            "2026-11-28T22:00:00.5Z",
            "2026-11-29T00:00:00+02:00",
            "2026-11-28T16:30:00-05:30",
        ] {
            assert_eq!(time(text), Ok(UnixTime(1_795_903_200)), "{text}");
        }
        for text in
            ["", "now", "-1", "2026-11-28", "2026-11-28T22:00:00", "2026-11-28T22:00:00+2", "2026-11-28T22:00:00+25:00"]
        {
            assert!(time(text).is_err(), "{text}");
        }
    }
}
