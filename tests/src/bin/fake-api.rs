//! The fake Messages API as a program, for trying things by hand and for other languages.

use anyhow::Result;
use harness_tests::fake_api::FakeApi;

#[tokio::main]
async fn main() -> Result<()> {
    let api = FakeApi::start().await?;
    println!("{}", api.url());
    std::future::pending().await
}
