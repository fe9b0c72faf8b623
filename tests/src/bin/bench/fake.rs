//! What the service itself takes, with a command line that costs nothing.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use harness_tests::host;
use serde_json::{Value, json};
use tempfile::{NamedTempFile, TempDir};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;
use tokio::task::JoinSet;

use crate::service::{Answer, CONTENT, Service, say_hi};
use crate::table::{Times, micros, millis, row};

/// A service with the fake command line, which plays a script.
pub(crate) struct Fake {
    pub(crate) service: Service,
    script: NamedTempFile,
    _cache: TempDir,
}

impl Fake {
    pub(crate) fn start(program: &Path, script: &str, settings: &str) -> Result<Self> {
        let file = NamedTempFile::new()?;
        std::fs::write(&file, script)?;
        let cache = tempfile::tempdir()?;
        let config = format!(
            "max_processes = 1000\n[backends.fake]\ncommand = \"{}\"\nenv = {{ FAKE_CLI_SCRIPT = \"{}\" }}\nmax_concurrent = 512\n{settings}\n[models.fake]\nbackend = \"fake\"\n",
            host::fake_cli().display(),
            file.path().display()
        );
        let service = Service::start(program, cache.path(), &config)?;
        service.compiled()?;
        Ok(Fake {
            service,
            script: file,
            _cache: cache,
        })
    }
}

/// An API of the service.
#[derive(Clone, Copy)]
pub(crate) struct Api {
    pub(crate) name: &'static str,
    pub(crate) path: &'static str,
    /// What stands before the text of a delta.
    pub(crate) before: &'static str,
    /// A request for a stream of the model `fake`.
    pub(crate) body: fn() -> Value,
}

pub(crate) const CHAT: Api = Api {
    name: "chat completions",
    path: "/v1/chat/completions",
    before: CONTENT,
    body: || say_hi("fake"),
};

/// Each request has a process of its own.
pub(crate) const COLD: &str = "warm = 0\ncontinue_for = \"0s\"";

/// Start to listening, with and without compiled guests, and memory when idle.
pub(crate) fn starts(program: &Path) -> Result<()> {
    let cache = tempfile::tempdir()?;
    let cold = Service::start(program, cache.path(), "")?;
    let what = "start to listening, cache of compiled guests cold";
    row(what, &millis(cold.start), "");
    drop(cold);
    let mut warm = Times::default();
    for _ in 0..20 {
        warm.push(Service::start(program, cache.path(), "")?.start);
    }
    row("start to listening, cache warm", &warm.spread(), "300 ms");
    let idle = Service::start(program, cache.path(), "")?;
    // It looks for its command line, and compiles nothing more.
    std::thread::sleep(Duration::from_secs(2));
    let resident = format!("{:.1} MB", idle.taken()?.resident);
    row("resident memory, idle", &resident, "60 MB");
    Ok(())
}

/// From the CLI's first delta on its standard output to the first content byte at the client.
pub(crate) async fn added_time(program: &Path, requests: usize) -> Result<()> {
    let fake = Fake::start(program, "#init\n#read\n#sleep 3\n#stamp\n#done\n", COLD)?;
    let (mut added, mut whole) = (Times::default(), Times::default());
    for _ in 0..requests {
        let started = Instant::now();
        let mut answer = fake.service.ask(&say_hi("fake")).await?;
        let (now, text) = answer.until(CONTENT).await?;
        added.push(
            now.duration_since(UNIX_EPOCH)?
                .saturating_sub(stamp(&text, CONTENT)?),
        );
        whole.push(started.elapsed());
        answer.whole().await?;
    }
    let what = "added to the first delta, one stream at a time";
    row(what, &added.tail(), "p50 0.5 ms");
    row(
        "request to first content, process spawned for it",
        &whole.spread(),
        "",
    );
    Ok(())
}

/// The time of day in a text that begins with `before`.
fn stamp(text: &str, before: &str) -> Result<Duration> {
    let content = text.get(before.len()..).context("no content")?;
    let digits = content.split(|c: char| !c.is_ascii_digit()).next();
    let nanos = digits.unwrap_or_default().parse();
    Ok(Duration::from_nanos(nanos.context("no stamp")?))
}

/// The times of day in a text, each behind these words.
pub(crate) fn stamps<'t>(text: &'t str, before: &'t str) -> impl Iterator<Item = Duration> + 't {
    let places = text.match_indices(before);
    places.filter_map(move |(at, _)| stamp(&text[at..], before).ok())
}

/// What a long history and a long prompt take beside a short request, with a fake CLI that only
/// reads: what remains is the service's own time.
pub(crate) async fn long_requests(program: &Path) -> Result<()> {
    const TURNS: usize = 50;
    const PROMPT: usize = 2 << 20;
    let user = |text: &str| json!({"role": "user", "content": text});
    let turn = [
        user("question"),
        json!({"role": "assistant", "content": "answer"}),
    ];
    let mut history: Vec<_> = std::iter::repeat_n(turn, TURNS).flatten().collect();
    history.push(user("Say hi"));
    let replay = "#read\n{\"type\":\"result\",\"is_error\":false}\n#read\n".repeat(TURNS);
    let short = first_content(program, "", json!([user("Say hi")])).await?;
    let replayed = first_content(program, &replay, history.into()).await?;
    let prompted = first_content(program, "", json!([user(&"x".repeat(PROMPT))])).await?;
    let each = replayed.median().saturating_sub(short.median()) / TURNS as u32;
    row(
        "added by a history of 50 turns, for each turn",
        &micros(each),
        "5 ms",
    );
    let prompt = prompted.median().saturating_sub(short.median());
    row("added by a prompt of 2 MB", &millis(prompt), "50 ms");
    Ok(())
}

/// From a request to its first content, with a fake CLI that plays `replay` first.
async fn first_content(program: &Path, replay: &str, messages: Value) -> Result<Times> {
    let script = format!("#init\n{replay}#read\n#text Hello\n#done\n");
    let fake = Fake::start(program, &script, COLD)?;
    let body = json!({"model": "fake", "stream": true, "messages": messages});
    let mut times = Times::default();
    for _ in 0..30 {
        times.push(fake.service.first_content(&body).await?);
    }
    Ok(times)
}

/// Streams and deltas that go through in a second, with so many streams at once.
pub(crate) async fn throughput(program: &Path) -> Result<()> {
    /// Deltas of a stream that is counted by deltas.
    const LONG: usize = 20_000;
    for (at_once, short, long) in [(1, 200, 20), (32, 800, 64), (256, 1024, 256)] {
        let fake = Fake::start(program, "#init\n#read\n#burst 10\n#done\n", COLD)?;
        let (seconds, _) = run(&fake.service, at_once, short, 10).await?;
        let streams = short as f64 / seconds;
        let script = format!("#init\n#read\n#burst {LONG}\n#done\n");
        let fake = Fake::start(program, &script, COLD)?;
        let before = fake.service.taken()?;
        let (seconds, counted) = run(&fake.service, at_once, long, LONG).await?;
        let after = fake.service.taken()?;
        let each = (after.cpu - before.cpu).as_secs_f64() / counted as f64 * 1e6;
        let what = format!("streams/s and deltas/s, {at_once} at once");
        let figure = format!(
            "{streams:.0} and {:.0}; {each:.1} µs of CPU a delta, {:.0} MB resident",
            counted as f64 / seconds,
            after.resident
        );
        row(&what, &figure, "100,000 deltas/s");
    }
    Ok(())
}

/// Runs `count` streams of `deltas` each, `at_once` at a time: the seconds that they took, and the
/// deltas that came.
async fn run(
    service: &Service,
    at_once: usize,
    count: usize,
    deltas: usize,
) -> Result<(f64, usize)> {
    let left = std::sync::atomic::AtomicUsize::new(count);
    let started = Instant::now();
    let worker = async || {
        let mut counted = 0;
        let take = |n: usize| n.checked_sub(1);
        use std::sync::atomic::Ordering::Relaxed;
        while left.fetch_update(Relaxed, Relaxed, take).is_ok() {
            let mut answer = service.ask(&say_hi("fake")).await?;
            let mut came = 0;
            while answer.more().await? {
                came += drain(&mut answer.all);
            }
            // The first chunk has the role, the last one the end.
            ensure!(came == deltas + 3, "{came} of {} frames", deltas + 3);
            counted += deltas;
        }
        anyhow::Ok(counted)
    };
    let workers: Vec<_> = (0..at_once).map(|_| worker()).collect();
    let counted = futures_util::future::try_join_all(workers).await?;
    Ok((started.elapsed().as_secs_f64(), counted.iter().sum()))
}

/// Counts the frames that are whole, and removes them.
fn drain(all: &mut Vec<u8>) -> usize {
    let ends = |pair: &&[u8]| *pair == b"\n\n";
    let count = all.windows(2).filter(ends).count();
    let last = all.last().copied();
    all.clear();
    // A frame's two newlines may come apart.
    all.extend(last.filter(|byte| *byte == b'\n' && count == 0));
    count
}

/// The order in a round. Who comes later is slower, because of what is still to be done for the one before. So each comes as
/// often first, second and so on, and not always behind the same one.
pub(crate) fn turns(round: usize, count: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |turn| match round % 2 {
        0 => (round / 2 + turn) % count,
        _ => (round / 2 + count - turn) % count,
    })
}

/// What came of streams at the pace of models.
pub(crate) struct Paced {
    pub(crate) times: Times,
    pub(crate) lost: usize,
    /// The share of one processor.
    cpu: f64,
    /// In MB.
    resident: f64,
}

impl Paced {
    pub(crate) const DELTAS: usize = 500;

    /// So many deltas, 20 ms apart, once all streams have begun.
    pub(crate) fn script(deltas: usize) -> String {
        format!("#init\n#read\n#sleep 3000\n#stamps {deltas} 20\n#done\n")
    }

    /// What takes longer from the CLI to the client than two pauses is late.
    pub(crate) const LATE: Duration = Duration::from_millis(40);

    pub(crate) fn figure(&self) -> String {
        format!(
            "{}, {} late, {} lost; {:.0} % of a core, {:.0} MB resident",
            self.times.tail(),
            self.times.above(Self::LATE),
            self.lost,
            self.cpu * 100.0,
            self.resident
        )
    }
}

/// So many streams of the model `fake`, which plays [`Paced::script`] with so many deltas, through an API.
pub(crate) async fn paced_streams(
    service: &Service,
    api: Api,
    at_once: usize,
    deltas: usize,
) -> Result<Paced> {
    let before = service.taken()?;
    let started = Instant::now();
    let mut streams = JoinSet::new();
    for _ in 0..at_once {
        streams.spawn(lateness(service.authority.clone(), api));
    }
    let mut times = Times::default();
    while let Some(stream) = streams.join_next().await {
        times.extend(stream??);
    }
    let taken = service.taken()?;
    Ok(Paced {
        lost: (at_once * deltas).saturating_sub(times.len()),
        times,
        cpu: (taken.cpu - before.cpu).as_secs_f64() / started.elapsed().as_secs_f64(),
        resident: taken.resident,
    })
}

/// Many streams at the pace of models: what comes late, or never.
pub(crate) async fn paced(program: &Path) -> Result<()> {
    for (at_once, wanted) in [(32, "p99 3 ms"), (256, "none late, none lost")] {
        let fake = Fake::start(program, &Paced::script(Paced::DELTAS), COLD)?;
        let through = paced_streams(&fake.service, CHAT, at_once, Paced::DELTAS).await?;
        let what = format!("added to each delta, {at_once} streams of 50 deltas/s");
        row(&what, &through.figure(), wanted);
        let times = straight(fake.script.path(), at_once).await?;
        let figure = format!("{}, {} late", times.tail(), times.above(Paced::LATE));
        row("the same straight from the CLI", &figure, "");
    }
    Ok(())
}

/// How long after the CLI printed them each of a stream's deltas came.
async fn lateness(authority: String, api: Api) -> Result<Times> {
    let mut answer = Answer::at(&authority, api.path, &(api.body)()).await?;
    let (mut times, mut read) = (Times::default(), 0);
    while answer.more().await? {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let text = std::str::from_utf8(&answer.all[read..])?;
        let Some(end) = text.rfind('\n') else {
            continue;
        };
        for printed in stamps(&text[..end], api.before) {
            times.push(now.saturating_sub(printed));
        }
        read += end;
    }
    Ok(times)
}

/// The same deltas with nothing between the CLI and whoever reads: what the machine itself adds.
async fn straight(script: &Path, at_once: usize) -> Result<Times> {
    let mut streams = JoinSet::new();
    for _ in 0..at_once {
        let script = script.to_owned();
        streams.spawn(async move {
            let mut cli = Command::new(host::fake_cli())
                .env("FAKE_CLI_SCRIPT", script)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?;
            let mut stdin = cli.stdin.take().context("no pipe")?;
            stdin.write_all(b"{}\n{}\n").await?;
            let stdout = cli.stdout.take().context("no pipe")?;
            let mut lines = BufReader::new(stdout).lines();
            let mut times = Times::default();
            while let Some(line) = lines.next_line().await? {
                let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
                let Some((_, nanos)) = line.rsplit_once("\"text\":\"") else {
                    continue;
                };
                let nanos = nanos.trim_end_matches(|c: char| !c.is_ascii_digit());
                times.push(now.saturating_sub(Duration::from_nanos(nanos.parse()?)));
            }
            cli.wait().await?;
            anyhow::Ok(times)
        });
    }
    let mut times = Times::default();
    while let Some(stream) = streams.join_next().await {
        times.extend(stream??);
    }
    Ok(times)
}
