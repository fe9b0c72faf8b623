//! What the adapter costs as a guest, beside the same adapter compiled natively.
//!
//! `cargo bench --bench guest` prints rows for the benchmark's table. With `lines native 1000`, or
//! `guest` instead of `native`, or `requests` or `instances` instead of `lines`, it only does that: for
//! callgrind, which counts instructions, so that two runs of different length tell what one costs.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use guest_claude_code::exchange::Exchange;
use guest_claude_code::request::{ChatRequest, Permissions};
use wasmtime::component::{Component, HasSelf, Linker, ResourceAny};
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store,
};

#[allow(missing_docs, clippy::all, reason = "generated code")]
mod contract {
    wasmtime::component::bindgen!({ path: "../wit", world: "adapter-guest" });
}
use contract::claude_harness::guest::{log, types};
use contract::{AdapterGuest, AdapterGuestPre};

const REQUEST: &str = r#"{"model":"m","stream":true,"messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"Say hi"}]}"#;
const LINE: &str = r#"{"type":"stream_event","event":{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"word "}},"session_id":"0b5f3d2e-2f7b-4c7e-9f0a-3a1f5f0a2b1c","parent_tool_use_id":null,"uuid":"5f0a2b1c-2f7b-4c7e-9f0a-3a1f0b5f3d2e"}"#;

/// Neither is ever reached.
const TIME: u64 = 1000;
const FUEL: usize = 1 << 20;

struct Nothing;

impl types::Host for Nothing {}

impl log::Host for Nothing {
    fn write(&mut self, _: log::Level, _: String) {}
}

/// The adapter as the service runs it.
struct Guest {
    engine: Engine,
    pre: AdapterGuestPre<Nothing>,
}

/// A request's instance.
struct Instance {
    store: Store<Nothing>,
    guest: AdapterGuest,
    exchange: ResourceAny,
}

impl Guest {
    /// `pooled` is how the service has it; callgrind cannot have so much address space.
    fn new(pooled: bool) -> Result<Self> {
        let mut config = Config::new();
        config.epoch_interruption(true).concurrency_support(false);
        if pooled {
            let mut pool = PoolingAllocationConfig::default();
            pool.max_memory_size(512 << 20)
                .linear_memory_keep_resident(2 << 20)
                .table_keep_resident(64 << 10)
                .pagemap_scan(Enabled::Auto);
            config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        }
        let engine = Engine::new(&config)?;
        let component = include_bytes!("../../guests/dist/claude-code.wasm");
        let component = Component::new(&engine, component)?;
        let mut linker = Linker::new(&engine);
        log::add_to_linker::<_, HasSelf<Nothing>>(&mut linker, |state| state)?;
        let pre = AdapterGuestPre::new(linker.instantiate_pre(&component)?)?;
        Ok(Guest { engine, pre })
    }

    /// What wasmtime takes for a request, whatever the guest.
    fn instance(&self) -> Result<(Store<Nothing>, AdapterGuest)> {
        let mut store = Store::new(&self.engine, Nothing);
        bound(&mut store);
        let guest = self.pre.instantiate(&mut store)?;
        Ok((store, guest))
    }

    /// What a request takes before its process is there.
    fn open(&self) -> Result<Instance> {
        let (mut store, guest) = self.instance()?;
        let adapter = guest.claude_harness_guest_adapter();
        let configured = adapter.call_configure(&mut store, &"{}".to_owned())?;
        configured.map_err(anyhow::Error::msg)?;
        let context = types::Context {
            id: "chatcmpl-1".into(),
            created: 1,
            model: "sonnet".into(),
            extra: "{}".into(),
        };
        let opened = adapter
            .exchange()
            .call_open(&mut store, &context, &REQUEST.to_owned())?;
        let exchange = opened.map_err(|error| anyhow::Error::msg(error.message))?;
        black_box(adapter.exchange().call_placeholders(&mut store, exchange)?);
        black_box(adapter.exchange().call_start(&mut store, exchange)?);
        Ok(Instance {
            store,
            guest,
            exchange,
        })
    }
}

impl Instance {
    fn line(&mut self) -> Result<()> {
        bound(&mut self.store);
        let adapter = self.guest.claude_harness_guest_adapter();
        let line = LINE.as_bytes();
        let effects = adapter
            .exchange()
            .call_output(&mut self.store, self.exchange, line)?;
        black_box(effects);
        Ok(())
    }
}

fn bound(store: &mut Store<Nothing>) {
    store.set_epoch_deadline(TIME);
    store.set_hostcall_fuel(FUEL);
}

fn native() -> Result<Exchange> {
    let permissions = Permissions {
        fetch_urls: false,
        show_reasoning: true,
    };
    let request = ChatRequest::from_request(REQUEST, "sonnet", permissions);
    let request = request.map_err(|error| anyhow::Error::msg(error.message))?;
    let mut exchange = Exchange::new(request);
    black_box(exchange.placeholders());
    black_box(exchange.start());
    Ok(exchange)
}

/// Does one thing so many times.
fn repeat(what: &str, how: &str, count: u32, pooled: bool) -> Result<Duration> {
    let guest = match how {
        "guest" => Some(Guest::new(pooled)?),
        "native" => None,
        _ => bail!("guest or native?"),
    };
    let mut instance = guest.as_ref().map(Guest::open).transpose()?;
    let mut exchange = native()?;
    let started = Instant::now();
    for _ in 0..count {
        match (what, &guest, &mut instance) {
            ("requests", Some(guest), _) => drop(black_box(guest.open()?)),
            ("requests", None, _) => drop(black_box(native()?)),
            ("instances", Some(guest), _) => drop(black_box(guest.instance()?)),
            ("instances", None, _) => {}
            ("lines", _, Some(instance)) => instance.line()?,
            ("lines", _, None) => drop(black_box(exchange.output(LINE.as_bytes()))),
            _ => bail!("requests, instances or lines?"),
        }
    }
    Ok(started.elapsed() / count)
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    if let [what, how, count] = arguments.as_slice() {
        repeat(
            what,
            how,
            count.parse().context("a number")?,
            std::env::var_os("POOLED").is_some(),
        )?;
        return Ok(());
    }
    for (what, count, name) in [
        ("requests", 2_000, "guest: a request opened and started"),
        ("instances", 2_000, "guest: of that, a fresh instance"),
        ("lines", 50_000, "guest: a delta's line"),
    ] {
        let mut both = ["guest", "native"].map(|how| (how, Vec::new()));
        for _ in 0..9 {
            for (how, times) in &mut both {
                times.push(repeat(what, how, count, true)?);
            }
        }
        let [guest, native] = both.map(|(_, mut times)| {
            times.sort();
            times[times.len() / 2].as_secs_f64() * 1e6
        });
        if what == "instances" {
            println!("| {name} | {guest:.2} µs |  |");
            continue;
        }
        let ratio = guest / native;
        println!("| {name} | {guest:.2} µs, native {native:.2} µs: {ratio:.1} times | 2.5 times |");
    }
    Ok(())
}
