//! `claude-harness usage`: what was used, out of the ledger. It needs no running service.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use ledger::{By, LedgerError, Sum};

use crate::config::{BAD_CONFIGURATION, Config, Overrides};

/// What is asked for.
#[derive(Args, Debug)]
pub struct UsageCommand {
    /// A line for each `day`, `model`, `key` or `api`, or for several of them with commas
    #[arg(long, default_value = "day", value_name = "WHAT", value_parser = by)]
    by: std::vec::Vec<By>,
    /// Only from this day of UTC on, such as 2026-11-01
    #[arg(long, value_name = "DATE")]
    since: Option<String>,
    /// How it is written
    #[arg(long, default_value = "table")]
    format: Format,
    /// The configuration [default: as for `serve`]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// For people
    Table,
    /// An array of objects
    Json,
    /// For spreadsheets
    Csv,
}

/// Prints what was used.
///
/// # Errors
///
/// Fails if the ledger is off or cannot be read.
pub fn run(command: &UsageCommand) -> Result<ExitCode> {
    let config = match Config::load(&Overrides::of_command(command.config.clone())) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("claude-harness: {error}");
            return Ok(ExitCode::from(BAD_CONFIGURATION));
        }
    };
    let Some(ledger) = config.ledger else {
        bail!("there is no ledger: `[ledger] enabled` is false, or there is no `state_dir`");
    };
    let sums = sums(&ledger.path, &command.by, command.since.as_deref())?;
    if sums.is_empty() {
        eprintln!("{} has nothing of this time", ledger.path.display());
    }
    let told = match command.format {
        Format::Table => table(&command.by, &sums),
        Format::Csv => csv(&command.by, &sums),
        Format::Json => serde_json::to_string_pretty(&sums).context("cannot write JSON")? + "\n",
    };
    std::io::stdout().lock().write_all(told.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// Reads what sums are wanted for: words with commas between them.
///
/// # Errors
///
/// Says which word is not known.
pub(crate) fn by(words: &str) -> Result<Vec<By>, String> {
    let mut by = Vec::new();
    for word in words.split(',').map(str::trim) {
        let known = By::ALL.into_iter().find(|by| by.name() == word);
        let known =
            known.ok_or("it is `day`, `model`, `key` or `api`, or several of them with commas")?;
        if !by.contains(&known) {
            by.push(known);
        }
    }
    Ok(by)
}

/// The sums of a ledger. One that nobody has written yet has none.
///
/// # Errors
///
/// Fails if the file cannot be read, or if `since` is no day.
pub(crate) fn sums(path: &Path, by: &[By], since: Option<&str>) -> Result<Vec<Sum>, LedgerError> {
    match ledger::sums(path, by, since) {
        Err(LedgerError::Missing(_)) => Ok(Vec::new()),
        other => other,
    }
}

/// The names of the columns of numbers, in the order of [`numbers`].
const NUMBERS: [&str; 9] = [
    "requests",
    "failed",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "reasoning_tokens",
    "cost_usd",
    "mean_first_token_ms",
    "mean_total_ms",
];

/// The numbers of a sum as text. What is unknown is empty.
fn numbers(sum: &Sum) -> [String; 9] {
    let known = |number: Option<u64>| number.map_or_else(String::new, |number| number.to_string());
    [
        sum.requests.to_string(),
        sum.failed.to_string(),
        sum.prompt_tokens.to_string(),
        sum.completion_tokens.to_string(),
        sum.cached_tokens.to_string(),
        sum.reasoning_tokens.to_string(),
        sum.cost_usd
            .map_or_else(String::new, |cost| format!("{cost:.6}")),
        known(sum.mean_first_token_ms),
        known(sum.mean_total_ms),
    ]
}

/// What a sum is for.
fn names(by: &[By], sum: &Sum) -> Vec<String> {
    let name = |by: &By| match by {
        By::Day => &sum.day,
        By::Model => &sum.model,
        By::Key => &sum.key,
        By::Api => &sum.api,
    };
    by.iter()
        .map(|by| name(by).clone().unwrap_or_default())
        .collect()
}

/// Sums as comma-separated values (RFC 4180), with a line of names before them.
pub(crate) fn csv(by: &[By], sums: &[Sum]) -> String {
    let field = |text: &str| match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    };
    let line = |fields: Vec<String>| {
        let fields: Vec<String> = fields.iter().map(|text| field(text)).collect();
        fields.join(",") + "\r\n"
    };
    let head = by.iter().map(|by| by.name()).chain(NUMBERS);
    let mut told = line(head.map(str::to_owned).collect());
    for sum in sums {
        told += &line(names(by, sum).into_iter().chain(numbers(sum)).collect());
    }
    told
}

/// Sums in columns, numbers to the right.
fn table(by: &[By], sums: &[Sum]) -> String {
    let head = [
        "requests",
        "failed",
        "prompt",
        "completion",
        "cached",
        "reasoning",
        "cost $",
        "first ms",
        "total ms",
    ];
    let head = by.iter().map(|by| by.name()).chain(head);
    let mut lines: Vec<Vec<String>> = vec![head.map(str::to_owned).collect()];
    for sum in sums {
        let shown = |text: String| {
            if text.is_empty() {
                "-".to_owned()
            } else {
                text
            }
        };
        lines.push(
            names(by, sum)
                .into_iter()
                .chain(numbers(sum))
                .map(shown)
                .collect(),
        );
    }
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max();
    let widths: Vec<usize> = (0..lines[0].len())
        .map(|column| width(column).unwrap_or(0))
        .collect();
    let mut told = String::new();
    for line in &lines {
        let cells =
            line.iter()
                .zip(&widths)
                .enumerate()
                .map(|(column, (text, &width))| match column < by.len() {
                    true => format!("{text:<width$}"),
                    false => format!("{text:>width$}"),
                });
        let cells: Vec<String> = cells.collect();
        told += cells.join("  ").trim_end();
        told += "\n";
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(key: &str) -> Sum {
        Sum {
            day: None,
            model: None,
            key: Some(key.into()),
            api: None,
            requests: 12,
            failed: 1,
            prompt_tokens: 3400,
            completion_tokens: 560,
            cached_tokens: 3000,
            reasoning_tokens: 0,
            cost_usd: Some(0.0125),
            mean_first_token_ms: None,
            mean_total_ms: Some(900),
        }
    }

    #[test]
    fn a_table_has_its_numbers_to_the_right() {
        let told = table(&[By::Key], &[sum("laptop"), sum("")]);
        assert_eq!(
            told,
            "\
key     requests  failed  prompt  completion  cached  reasoning    cost $  first ms  total ms
laptop        12       1    3400         560    3000          0  0.012500         -       900
-             12       1    3400         560    3000          0  0.012500         -       900
"
        );
    }

    #[test]
    fn a_name_with_a_comma_is_quoted_in_csv() {
        let told = csv(&[By::Key], &[sum("a,\"b\"")]);
        assert!(
            told.contains("\r\n\"a,\"\"b\"\"\",12,1,3400,560,3000,0,0.012500,,900\r\n"),
            "{told}"
        );
    }

    #[test]
    fn what_sums_are_for_is_read_in_order_and_once() {
        assert_eq!(by("key, day,key"), Ok(vec![By::Key, By::Day]));
        assert!(by("hour").is_err() && by("").is_err());
    }
}
