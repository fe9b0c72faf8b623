//! A steady load for a while: what grows.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::fake::Fake;
use crate::service::say_hi;
use crate::table::row;

/// Requests in a second.
const RATE: u32 = 20;

/// Runs for so many minutes. What stands at the start is taken after a first half minute, when all
/// threads and caches are there.
pub(crate) async fn soak(program: &Path, minutes: u64) -> Result<()> {
    let script = "#init\n#read\n#deltas 10 5\n#done\n";
    let fake = Fake::start(program, script, "warm = 4")?;
    load(&fake, Duration::from_secs(30)).await?;
    let before = fake.service.taken()?;
    let requests = load(&fake, Duration::from_secs(60 * minutes)).await?;
    let after = fake.service.taken()?;
    let figure = format!(
        "{requests} requests; {:.1} to {:.1} MB resident, {} to {} descriptors",
        before.resident, after.resident, before.descriptors, after.descriptors
    );
    let what = format!("soak: {RATE} requests/s for {minutes} minutes");
    row(&what, &figure, "no growth");
    Ok(())
}

/// Sends requests at the rate, and waits for the last answer and the last process to end.
async fn load(fake: &Fake, time: Duration) -> Result<usize> {
    let started = Instant::now();
    let mut pace = tokio::time::interval(Duration::from_secs(1) / RATE);
    let mut requests = tokio::task::JoinSet::new();
    let mut count = 0;
    while started.elapsed() < time {
        pace.tick().await;
        let authority = fake.service.authority.clone();
        requests.spawn(async move {
            let mut answer = crate::service::Answer::to(&authority, &say_hi("fake")).await?;
            answer.until("[DONE]").await
        });
        count += 1;
        while let Some(done) = requests.try_join_next() {
            done??;
        }
    }
    while let Some(done) = requests.join_next().await {
        done??;
    }
    fake.service.warmed("fake", 4).await?;
    Ok(count)
}
