//! The four kinds of work that agents and chats are made of, with processes that are used again and with a fresh one for
//! each request, on the real command lines.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use futures_util::StreamExt as _;
use futures_util::stream;
use harness_tests::fake_api::FakeApi;
use harness_tests::real_cli;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::fake::COLD;
use crate::service::Service;
use crate::table::{Times, ratio, row};

/// How many questions there are that have nothing to do with each other.
const QUESTIONS: usize = 24;

/// How often each of the other things is measured.
const ROUNDS: usize = 7;

/// Until a process that has answered is at rest.
const REST: Duration = Duration::from_millis(250);

/// A version, and the API behind it.
struct Bench {
    version: &'static str,
    _api: FakeApi,
    _home: TempDir,
    _cache: TempDir,
    reusing: Service,
    fresh: Service,
}

/// Measures all versions that are there.
pub(crate) async fn compare(program: &Path) -> Result<()> {
    for version in real_cli::VERSIONS {
        let Some(cli) = real_cli::find(version, "the benchmark") else {
            continue;
        };
        let (api, home, cache) = (
            FakeApi::start().await?,
            tempfile::tempdir()?,
            tempfile::tempdir()?,
        );
        let start = |settings: &str| {
            let config = format!(
                "[backends.claude]\ncommand = \"{}\"\nenv = {{ ANTHROPIC_BASE_URL = \"{}\", HTTPS_PROXY = \"http://127.0.0.1:9\", NO_PROXY = \"127.0.0.1\", CLAUDE_CODE_OAUTH_TOKEN = \"any\", CLAUDE_CONFIG_DIR = \"{}\" }}\nmax_concurrent = 8\n{settings}\n[models.m]\nbackend = \"claude\"\nmodel = \"sonnet\"\n",
                cli.display(),
                api.url(),
                home.path().display()
            );
            Service::start(program, cache.path(), &config)
        };
        let bench = Bench {
            version,
            reusing: start("")?,
            fresh: start(COLD)?,
            _api: api,
            _home: home,
            _cache: cache,
        };
        bench.independent().await?;
        bench.edits().await?;
        bench.results().await?;
        bench.bursts().await?;
    }
    Ok(())
}

impl Bench {
    fn row(&self, what: &str, figure: &str, wanted: &str) {
        row(
            &format!("{what}, Claude Code {}", self.version),
            figure,
            wanted,
        );
    }

    /// Independent questions with one system prompt.
    async fn independent(&self) -> Result<()> {
        for at_once in [1, 4] {
            let reusing = questions(&self.reusing, at_once).await?;
            let fresh = questions(&self.fresh, at_once).await?;
            let times = ratio(fresh.time, reusing.time);
            let figure = |run: &Run| {
                let each = run.cpu.as_secs_f64() / QUESTIONS as f64;
                let rate = QUESTIONS as f64 / run.time.as_secs_f64();
                format!("{rate:.1} a second, {each:.2} s of processor time each")
            };
            self.row(
                &format!("{QUESTIONS} independent questions, {at_once} at a time ({times} times as many a second)"),
                &figure(&reusing),
                "6 times as many (2.1.330)",
            );
            self.row("the same, a process for each", &figure(&fresh), "");
        }
        Ok(())
    }

    /// Asks again, and edits two turns back, in a conversation of five turns; beside a continued turn.
    async fn edits(&self) -> Result<()> {
        let [mut again, mut edited, mut goes_on] = [(); 3].map(|()| Times::default());
        let [mut again_fresh, mut edited_fresh] = [(); 2].map(|()| Times::default());
        for round in 0..ROUNDS {
            let talk = conversation(5, round);
            let asked = |talk: &[Value]| json!({"model": "m", "stream": true, "messages": talk});
            let first = async |service: &Service, body: Value| {
                let time = service.first_content(&body).await;
                tokio::time::sleep(REST).await;
                time
            };
            first(&self.reusing, asked(&talk[..7])).await?;
            goes_on.push(first(&self.reusing, asked(&talk)).await?);
            again.push(first(&self.reusing, asked(&talk)).await?);
            let edit = [&talk[..4], &[user(&format!("{round}, but different"))]].concat();
            edited.push(first(&self.reusing, asked(&edit)).await?);
            again_fresh.push(first(&self.fresh, asked(&talk)).await?);
            edited_fresh.push(first(&self.fresh, asked(&edit)).await?);
        }
        self.row(
            "first content of a continued turn, in a conversation of five",
            &goes_on.spread(),
            "",
        );
        for (what, times, fresh) in [
            ("asked again", &again, &again_fresh),
            ("edited two turns back", &edited, &edited_fresh),
        ] {
            let faster = ratio(fresh.median(), times.median());
            let beside = ratio(times.median(), goes_on.median());
            self.row(
                &format!("first content, {what} ({faster} times as fast; {beside} times a continued turn)"),
                &times.spread(),
                "5 times as fast; 1.25 times",
            );
            self.row("the same, a process for each", &fresh.spread(), "");
        }
        Ok(())
    }

    /// A function's result.
    async fn results(&self) -> Result<()> {
        let [mut reusing, mut fresh] = [(); 2].map(|()| Times::default());
        for round in 0..ROUNDS {
            for (service, times) in [(&self.reusing, &mut reusing), (&self.fresh, &mut fresh)] {
                let mut talk = vec![user(&format!("What is the weather, {round}?"))];
                let body = |talk: &[Value]| {
                    json!({"model": "m", "messages": talk, "tools": [{"type": "function", "function": {
                        "name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}]})
                };
                let answer = service.whole(&body(&talk)).await?;
                let said = answer["choices"][0]["message"].clone();
                let id = said["tool_calls"][0]["id"].clone();
                talk.extend([
                    said,
                    json!({"role": "tool", "tool_call_id": id, "content": "rain"}),
                ]);
                tokio::time::sleep(REST).await;
                let mut asked = body(&talk);
                asked["stream"] = true.into();
                times.push(service.first_content(&asked).await?);
                tokio::time::sleep(REST).await;
            }
        }
        let faster = ratio(fresh.median(), reusing.median());
        self.row(
            &format!("first content after a function's result ({faster} times as fast)"),
            &reusing.spread(),
            "5 times as fast",
        );
        self.row("the same, a process for each", &fresh.spread(), "");
        Ok(())
    }

    /// Eight at once, twice: nobody said that they would come.
    async fn bursts(&self) -> Result<()> {
        let mut bursts = Vec::new();
        for round in 0..2 {
            let bodies: Vec<Value> = (0..8)
                .map(|i| {
                    let system =
                        json!({"role": "system", "content": format!("Burst {round}, {i}")});
                    json!({"model": "m", "stream": true, "messages": [system, user("Say hi")]})
                })
                .collect();
            let burst = bodies.iter().map(|body| self.reusing.first_content(body));
            let mut times = Times::default();
            for time in futures_util::future::try_join_all(burst).await? {
                times.push(time);
            }
            bursts.push(times);
            if round == 0 {
                // Until what was parked has gone, and others are ready.
                self.reusing.warmed_at_least("claude", 8).await?;
            }
        }
        let faster = ratio(bursts[0].median(), bursts[1].median());
        self.row(
            "first content, eight at once, the first time",
            &bursts[0].spread(),
            "",
        );
        self.row(
            &format!("the second time ({faster} times as fast)"),
            &bursts[1].spread(),
            "3 times as fast",
        );
        Ok(())
    }
}

/// What a number of questions took.
struct Run {
    time: Duration,
    cpu: Duration,
}

async fn questions(service: &Service, at_once: usize) -> Result<Run> {
    let ask = |i: usize| async move {
        let system = json!({"role": "system", "content": "Be brief."});
        let body = json!({"model": "m", "messages": [system, user(&format!("Question {i}"))]});
        service.whole(&body).await.map(drop)
    };
    // The first ones start the processes.
    for answer in stream::iter(0..at_once)
        .map(ask)
        .buffer_unordered(at_once)
        .collect::<Vec<_>>()
        .await
    {
        answer?;
    }
    tokio::time::sleep(REST * 4).await;
    let (before, started) = (service.cpu_of_all()?, Instant::now());
    let answers = stream::iter(0..QUESTIONS)
        .map(ask)
        .buffer_unordered(at_once);
    for answer in answers.collect::<Vec<_>>().await {
        answer?;
    }
    let time = started.elapsed();
    tokio::time::sleep(REST * 4).await;
    Ok(Run {
        time,
        cpu: service.cpu_of_all()?.saturating_sub(before),
    })
}

/// A conversation with so many questions, which ends with one.
fn conversation(questions: usize, round: usize) -> Vec<Value> {
    let mut talk = Vec::new();
    for i in 0..questions {
        talk.push(user(&format!("Round {round}, question {i}")));
        talk.push(json!({"role": "assistant", "content": "Hello there"}));
    }
    talk.pop();
    talk
}

fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}
