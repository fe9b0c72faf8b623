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
use crate::service::{Service, real_config};
use crate::table::{Times, ratio, row};

/// How many questions there are that have nothing to do with each other.
pub(crate) const QUESTIONS: usize = 24;

/// How often each of the other things is measured.
const ROUNDS: usize = 7;

/// How many results an agent gets in a row.
const CALLS_IN_A_ROW: usize = 10;

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
            let settings = format!("max_concurrent = 8\n{settings}");
            let config = real_config(&cli, &api, home.path(), &settings);
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

    /// A function's result, and ten calls in a row, as an agent makes them.
    async fn results(&self) -> Result<()> {
        let [mut reusing, mut fresh] = [(); 2].map(|()| Times::default());
        let [mut reusing_all, mut fresh_all] = [(); 2].map(|()| Times::default());
        for round in 0..ROUNDS {
            for (service, times, all) in [
                (&self.reusing, &mut reusing, &mut reusing_all),
                (&self.fresh, &mut fresh, &mut fresh_all),
            ] {
                // The last steps of an agent are measured with the whole of its work.
                let count = if round == 0 { CALLS_IN_A_ROW } else { 1 };
                let firsts = agent(service, round, count).await?;
                if round == 0 {
                    all.extend(firsts);
                } else {
                    times.extend(firsts);
                }
            }
        }
        for (what, reusing, fresh) in [
            ("after a function's result", &reusing, &fresh),
            (
                "after each of ten results in a row",
                &reusing_all,
                &fresh_all,
            ),
        ] {
            let faster = ratio(fresh.median(), reusing.median());
            self.row(
                &format!("first content {what} ({faster} times as fast)"),
                &reusing.spread(),
                "5 times as fast",
            );
            self.row("the same, a process for each", &fresh.spread(), "");
        }
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

/// An agent that gets so many results, one after the other: the time to the first content after each.
async fn agent(service: &Service, round: usize, results: usize) -> Result<Times> {
    let mut talk = vec![user(&format!("What is the weather, {round}?"))];
    let tools = json!([{"type": "function", "function": {
        "name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}]);
    let mut times = Times::default();
    for i in 0..results {
        let body = json!({"model": "m", "messages": talk, "tools": tools});
        let answer = service.whole(&body).await?;
        let said = answer["choices"][0]["message"].clone();
        let id = said["tool_calls"][0]["id"].clone();
        anyhow::ensure!(id.is_string(), "no call: {answer}");
        talk.extend([
            said,
            json!({"role": "tool", "tool_call_id": id, "content": "rain"}),
        ]);
        tokio::time::sleep(REST).await;
        let asked = json!({"model": "m", "stream": true, "messages": talk, "tools": tools});
        times.push(service.first_content(&asked).await?);
        tokio::time::sleep(REST).await;
        // What the fake model says after a result, and the next question.
        let text = "The result is rain";
        talk.extend([
            json!({"role": "assistant", "content": text}),
            user(&format!("What is the weather, {round}, {i}?")),
        ]);
    }
    Ok(times)
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
pub(crate) fn conversation(questions: usize, round: usize) -> Vec<Value> {
    let mut talk = Vec::new();
    for i in 0..questions {
        talk.push(user(&format!("Round {round}, question {i}")));
        talk.push(json!({"role": "assistant", "content": "Hello there"}));
    }
    talk.pop();
    talk
}

pub(crate) fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}
