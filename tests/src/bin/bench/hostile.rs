//! What hostile guests cost the requests of others: streams at the pace of models, alone and beside guests that do
//! their worst without a pause. Each request takes a process, whatever its guest does, so the same streams are also
//! measured beside guests that fail at once and are asked as often.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use harness_tests::host;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::fake::{CHAT, COLD, Paced, paced_streams, turns};
use crate::service::Service;
use crate::table::{Times, row};

/// Where a guest does what. Each is a model of its own, which somebody asks for all the time.
const DEEDS: [(&str, &str); 6] = [
    ("open", "spin"),
    ("start", "allocate"),
    ("start", "huge"),
    ("start", "many"),
    ("start", "overflow"),
    ("start", "chatter"),
];

/// What a guest does that only fails: it says twice that the answer has ended. It has the name of the hostile ones, so it runs
/// on the same threads.
const FAILS: (&str, &str) = ("start", "two-ends");

const COUNT: usize = DEEDS.len();

/// How the models of these guests, and of those, begin.
const HOSTILE: &str = "hostile";
const FAILING: &str = "failing";

/// Streams that are measured, and the deltas of each.
const STREAMS: usize = 32;
const DELTAS: usize = 150;

/// How often each situation is measured.
const ROUNDS: usize = 5;

/// A service with a model that answers at the pace of models, and those whose guests are hostile.
struct Beside {
    service: Service,
    _home: TempDir,
}

/// Measures both on all processors, and with the service pinned to one.
pub(crate) async fn compare(program: &Path) -> Result<()> {
    for (is_pinned, where_) in [
        (false, "on two processors"),
        (true, "service pinned to one"),
    ] {
        let beside = Beside::start(program, is_pinned)?;
        beside.service.compiled()?;
        beside.in_rounds(where_).await?;
    }
    Ok(())
}

/// The streams in one situation, over all rounds.
#[derive(Default)]
struct Situation {
    times: Times,
    late: usize,
    lost: usize,
    /// How many requests the guests were asked.
    asked: usize,
    /// The 99th percentile of each round.
    slowest: Times,
}

impl Situation {
    fn add(&mut self, streams: Paced, asked: [usize; COUNT]) {
        self.late += streams.times.above(Paced::LATE);
        self.lost += streams.lost;
        self.asked += asked.iter().sum::<usize>();
        self.slowest.push(streams.times.percentile(99));
        self.times.extend(streams.times);
    }

    /// How many times as high the 99th percentile is as in another situation, as the median of the rounds, and from which to
    /// which round.
    fn beside(&self, other: &Situation) -> String {
        let ratios = self.slowest.ratios_to(&other.slowest);
        let [low, high] = [ratios.first(), ratios.last()].map(|end| end.copied().unwrap_or(0.0));
        let middle = self.slowest.ratio_to(&other.slowest);
        format!("; p99 {middle:.2} times ({low:.2} to {high:.2})")
    }

    fn figure(&self) -> String {
        let (tail, late, lost) = (self.times.tail(), self.late, self.lost);
        format!("{tail}, {late} late, {lost} lost")
    }
}

impl Beside {
    fn start(program: &Path, is_pinned: bool) -> Result<Self> {
        let home = tempfile::tempdir()?;
        let guests = home.path().join("guests");
        std::fs::create_dir(&guests)?;
        let component = concat!(env!("CARGO_MANIFEST_DIR"), "/guests/dist/hostile.wasm");
        std::fs::copy(component, guests.join("hostile.wasm"))?;
        std::fs::write(home.path().join("script"), Paced::script(DELTAS))?;
        let mut config = format!(
            "guests_dir = \"{}\"\nmax_processes = 1000\nguest_memory = \"64MiB\"\n[guests.hostile]\ngive_way_after = 0\n[backends.fake]\n{}\nmax_concurrent = 512\n{COLD}\n[models.fake]\nbackend = \"fake\"\n",
            guests.display(),
            command(&home),
        );
        let hostile = DEEDS
            .iter()
            .enumerate()
            .map(|(i, deed)| (model(HOSTILE, i), deed));
        let failing = (0..COUNT).map(|i| (model(FAILING, i), &FAILS));
        for (name, (at, deed)) in hostile.chain(failing) {
            config += &format!(
                "[backends.{name}]\n{}\nadapter = {{ guest = \"hostile\", config = {{ at = \"{at}\", do = \"{deed}\" }} }}\n{COLD}\n[models.{name}]\nbackend = \"{name}\"\n",
                command(&home),
            );
        }
        Ok(Beside {
            service: Service::start_pinned(program, home.path(), &config, is_pinned)?,
            _home: home,
        })
    }

    /// By turns beside hostile guests, alone, and twice beside guests that fail. What the two differ by is noise.
    async fn in_rounds(&self, where_: &str) -> Result<()> {
        let kinds = [Some(HOSTILE), None, Some(FAILING), Some(FAILING)];
        let mut all: [Situation; 4] = Default::default();
        let mut paces = [Duration::ZERO; COUNT];
        for round in 0..ROUNDS {
            // The first turn is that of the hostile ones, so there is a pace for the others.
            for turn in turns(round, kinds.len()) {
                self.settle().await?;
                let began = Instant::now();
                let (streams, asked) = match kinds[turn] {
                    None => (self.streams().await?, [0; COUNT]),
                    Some(HOSTILE) => self.attacked(HOSTILE, &[Duration::ZERO; COUNT]).await?,
                    Some(kind) => self.attacked(kind, &paces).await?,
                };
                if kinds[turn] == Some(HOSTILE) {
                    let took = began.elapsed();
                    paces =
                        asked.map(|count| took / u32::try_from(count.max(1)).unwrap_or(u32::MAX));
                }
                all[turn].add(streams, asked);
            }
        }
        let [hostile, alone, failing, again] = all;
        let what = format!("added to each delta, {STREAMS} streams of 50 deltas/s, {where_}");
        row(&what, &alone.figure(), "");
        for (what, situation, against, wanted) in [
            ("guests that fail at once", &failing, String::new(), ""),
            ("the same guests again", &again, again.beside(&failing), ""),
            (
                "hostile guests",
                &hostile,
                hostile.beside(&failing),
                "no more than noise",
            ),
        ] {
            let what = format!("the same beside {what}, {} requests", situation.asked);
            row(&what, &format!("{}{against}", situation.figure()), wanted);
        }
        Ok(())
    }

    /// Waits until no guest of the situation before is at it any more: a call ends when its time is up, and not sooner.
    async fn settle(&self) -> Result<()> {
        const PERIOD: Duration = Duration::from_millis(300);
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let before = self.service.taken()?.cpu;
            tokio::time::sleep(PERIOD).await;
            if self.service.taken()?.cpu - before < PERIOD / 20 {
                return Ok(());
            }
            anyhow::ensure!(
                Instant::now() < deadline,
                "the service does not come to rest"
            );
        }
    }

    async fn streams(&self) -> Result<Paced> {
        paced_streams(&self.service, CHAT, STREAMS, DELTAS).await
    }

    /// The streams beside guests of this kind, each of which is asked as soon as this time is over since it was asked, and
    /// how often they were asked.
    async fn attacked(
        &self,
        kind: &str,
        paces: &[Duration; COUNT],
    ) -> Result<(Paced, [usize; COUNT])> {
        let asked: [Arc<AtomicUsize>; COUNT] = std::array::from_fn(|_| Arc::default());
        let attackers: Vec<_> = (0..COUNT)
            .map(|i| {
                let (authority, asked) = (self.service.authority.clone(), asked[i].clone());
                tokio::spawn(attack(authority, model(kind, i), asked, paces[i]))
            })
            .collect();
        let streams = self.streams().await?;
        attackers.iter().for_each(|attacker| attacker.abort());
        Ok((streams, asked.map(|count| count.load(Ordering::Relaxed))))
    }
}

/// The fake command line, and its script.
fn command(home: &TempDir) -> String {
    format!(
        "command = \"{}\"\nenv = {{ FAKE_CLI_SCRIPT = \"{}\" }}",
        host::fake_cli().display(),
        home.path().join("script").display()
    )
}

/// The name of a model whose guest is of this kind.
fn model(kind: &str, number: usize) -> String {
    format!("{kind}-{number}")
}

/// Asks for a model whose guest does its worst.
async fn attack(
    authority: String,
    model: String,
    asked: Arc<AtomicUsize>,
    pace: Duration,
) -> Result<()> {
    let client = harness_tests::http::client().build()?;
    let url = format!("http://{authority}/v1/chat/completions");
    let body = json!({"model": model, "messages": [{"role": "user", "content": "hi"}]});
    loop {
        let due = Instant::now() + pace;
        // Most fail; what floods the log is answered.
        let _: Value = client.post(&url).json(&body).send().await?.json().await?;
        asked.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep_until(due.into()).await;
    }
}
