//! What other APIs cost beside chat completions, in one run: what is added to the first delta, the processor time of
//! each delta, and many streams at the pace of models.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use serde_json::{Value, json};

use crate::fake::{Api, CHAT, COLD, Fake, Paced, paced_streams, stamps, turns};
use crate::service::{Answer, Service};
use crate::table::{Times, micros, row};

/// How many first deltas of each API are measured.
const FIRSTS: usize = 200;

/// How many deltas of a stream are counted, and how many such streams.
const DELTAS: usize = 20_000;
const STREAMS: usize = 8;

const RESPONSES: Api = Api {
    name: "responses",
    path: "/v1/responses",
    before: "\"delta\":\"",
    body: || json!({"model": "fake", "stream": true, "input": hi()}),
};

const OTHERS: [Api; 4] = [
    RESPONSES,
    Api {
        name: "messages",
        path: "/v1/messages",
        before: "\"text\":\"",
        body: || json!({"model": "fake", "stream": true, "max_tokens": 100_000, "messages": hi()}),
    },
    Api {
        name: "ollama",
        path: "/api/chat",
        before: "\"content\":\"",
        body: || json!({"model": "fake", "messages": hi()}),
    },
    Api {
        name: "completions",
        path: "/v1/completions",
        before: "\"text\":\"",
        body: || json!({"model": "fake", "stream": true, "prompt": "Say hi"}),
    },
];

fn hi() -> Value {
    json!([{"role": "user", "content": "Say hi"}])
}

/// Measures all of them.
pub(crate) async fn compare(program: &Path) -> Result<()> {
    firsts(program).await?;
    deltas(program).await?;
    for api in [CHAT, RESPONSES] {
        let fake = Fake::start(program, &Paced::script(Paced::DELTAS), COLD)?;
        let paced = paced_streams(&fake.service, api, 256, Paced::DELTAS).await?;
        let what = format!(
            "added to each delta, 256 streams of 50 deltas/s, {}",
            api.name
        );
        row(&what, &paced.figure(), "none late, none lost");
    }
    Ok(())
}

/// From the CLI's first delta on its standard output to the client, by turns.
async fn firsts(program: &Path) -> Result<()> {
    let fake = Fake::start(program, "#init\n#read\n#sleep 3\n#stamp\n#done\n", COLD)?;
    let apis: Vec<Api> = [CHAT].into_iter().chain(OTHERS).collect();
    let mut all = vec![Times::default(); apis.len()];
    for round in 0..FIRSTS {
        for turn in turns(round, apis.len()) {
            all[turn].push(first(&fake.service, apis[turn]).await?);
        }
    }
    let chat = all.first().map(Times::median).unwrap_or_default();
    for (api, times) in apis.iter().zip(&all) {
        let more = times.median().saturating_sub(chat);
        let (what, wanted) = match api.path == CHAT.path {
            true => (String::new(), ""),
            false => (
                format!(" ({} more than chat completions)", micros(more)),
                "100 µs more",
            ),
        };
        let what = format!("added to the first delta, {}{what}", api.name);
        row(&what, &times.tail(), wanted);
    }
    Ok(())
}

/// From the first delta on the CLI's standard output to the client.
pub(crate) async fn first(service: &Service, api: Api) -> Result<Duration> {
    let mut answer = Answer::at(&service.authority, api.path, &(api.body)()).await?;
    let mut found = None;
    while found.is_none() && answer.more().await? {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let text = String::from_utf8_lossy(&answer.all);
        let printed = stamps(&text, api.before).next();
        found = printed.map(|printed| now.saturating_sub(printed));
    }
    answer.whole().await?;
    found.ok_or_else(|| anyhow::anyhow!("no stamp through {}", api.name))
}

/// The processor time of each delta of a stream as fast as it goes.
async fn deltas(program: &Path) -> Result<()> {
    let script = format!("#init\n#read\n#burst {DELTAS}\n#done\n");
    let mut chat = None;
    for api in [CHAT].into_iter().chain(OTHERS) {
        let fake = Fake::start(program, &script, COLD)?;
        let before = fake.service.taken()?.cpu;
        for _ in 0..STREAMS {
            let mut answer = Answer::at(&fake.service.authority, api.path, &(api.body)()).await?;
            while answer.more().await? {
                answer.all.clear();
            }
        }
        let taken = fake.service.taken()?.cpu - before;
        let each = taken / (DELTAS * STREAMS) as u32;
        let of_chat = *chat.get_or_insert(each);
        let more = format!("{:.1} µs", each.as_secs_f64() * 1e6);
        let beside = each.saturating_sub(of_chat).as_secs_f64() * 1e6;
        let (what, wanted) = match api.path == CHAT.path {
            true => (String::new(), ""),
            false => (
                format!(" ({beside:.1} µs more than chat completions)"),
                "10 µs more",
            ),
        };
        row(
            &format!("processor time of a delta, {}{what}", api.name),
            &more,
            wanted,
        );
    }
    Ok(())
}
