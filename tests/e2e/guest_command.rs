//! `claude-harness guest …`, and what is kept of guests.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use harness_tests::host::{Host, assert_refused, program};
use harness_tests::poll;
use serde_json::{Value, json};

use crate::cli::message;

fn meddler(number: u8) -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut bytes = std::fs::read(root.join("tests/guests/dist/meddler.wasm")).unwrap();
    bytes.extend([0, 3, 1, b'v', number]);
    bytes
}

const CONFIG: &str = r#"
    [backends.echo]
    profile = "generic"
    command = "cat"
    [guests.prompt-template]
    config = { template = "{{ messages[-1].content }}" }
    [models.echo]
    backend = "echo"
    transforms = [{ guest = "meddler", config = { mark = "m" } }, "redact"]
    [models.canned]
    backend = "echo"
    transforms = [{ guest = "meddler", config = { answer = "canned" } }]
    "#;

fn start() -> Host {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join("guests.d")).unwrap();
    std::fs::write(home.path().join("guests.d/meddler.wasm"), meddler(0)).unwrap();
    Host::start_in(home, CONFIG)
}

fn guest(home: &Path, arguments: &[&str]) -> Output {
    let command = Command::new(program())
        .arg("guest")
        .args(arguments)
        .args(["--config".as_ref(), home.join("harness.toml").as_os_str()])
        .env_clear()
        .env("HOME", home)
        .env("PATH", "/usr/bin:/bin")
        .output();
    command.unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

async fn digest(host: &Host) -> String {
    let (_, health) = host.get("/health").await;
    health["guests"]["meddler"]["digest"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// Puts a component into place, and waits until it serves. Returns its digest.
async fn deploy(host: &Host, number: u8) -> String {
    let before = digest(host).await;
    std::fs::write(host.home().join("guests.d/meddler.wasm"), meddler(number)).unwrap();
    poll::until("the component", Duration::from_secs(120), async || {
        Some(digest(host).await).filter(|now| *now != before && !now.is_empty())
    })
    .await
}

async fn becomes(host: &Host, wanted: &str) {
    poll::until(
        "the earlier component",
        Duration::from_secs(120),
        async || Some(digest(host).await).filter(|now| now == wanted),
    )
    .await;
}

#[tokio::test]
async fn earlier_components_are_kept_and_put_back_step_by_step() {
    let host = start();
    let first = poll::until("the guest", Duration::from_secs(120), async || {
        Some(digest(&host).await).filter(|digest| !digest.is_empty())
    })
    .await;
    let second = deploy(&host, 1).await;
    let third = deploy(&host, 2).await;
    let (_, state) = host.get("/admin/guests").await;
    let kept: Vec<&str> = state["guests"]["meddler"]["kept"]
        .as_array()
        .unwrap()
        .iter()
        .map(|kept| kept["digest"].as_str().unwrap())
        .collect();
    assert_eq!(kept, [&third, &second, &first], "{state}");

    // By the command, which the running service notices.
    let output = guest(host.home(), &["rollback", "meddler"]);
    let told = text(&output.stdout);
    assert!(
        output.status.success() && told.contains(&third) && told.contains(&second),
        "{output:?}"
    );
    becomes(&host, &second).await;
    // By the service, and not back to the third one.
    let rollback = |query: &str| {
        let url = host.url(&format!("/admin/guests/meddler/rollback{query}"));
        host.client().post(url).send()
    };
    let report: Value = rollback("").await.unwrap().json().await.unwrap();
    assert_eq!(
        (&report["from"], &report["to"]),
        (&json!(second), &json!(first))
    );
    becomes(&host, &first).await;
    let refused = rollback("").await.unwrap();
    let status = refused.status().as_u16();
    let refused = (status, refused.json().await.unwrap());
    assert_refused(&refused, (400, ""), "nothing is kept of `meddler` before");
    // To any of them by its digest.
    rollback(&format!("?digest={}", &third[..10]))
        .await
        .unwrap();
    becomes(&host, &third).await;
    let (status, _) = host.ask("canned", "x").await;
    assert_eq!(status, 200);

    let listed = guest(host.home(), &["list"]);
    let told = text(&listed.stdout);
    assert!(told.contains("meddler  transform 1.0.0, file"), "{told}");
    assert!(told.contains(&format!("* {}", &third[..12])), "{told}");
    assert!(told.contains("redact  transform"), "{told}");
    let unknown = guest(host.home(), &["rollback", "nobody"]);
    assert!(!unknown.status.success() && text(&unknown.stderr).contains("no guest `nobody`"));
}

#[tokio::test]
async fn a_request_is_rendered_without_starting_a_process() {
    let host = start();
    let home = host.home();
    let request = home.join("request.json");
    let body =
        json!({"model": "echo", "messages": [{"role": "user", "content": "I am ann@example.org"}]});
    std::fs::write(&request, body.to_string()).unwrap();
    let request = request.to_str().unwrap();
    let shown = guest(home, &["render", request]);
    assert_eq!(text(&shown.stdout), "I am <EMAIL_1>", "{shown:?}");
    assert!(text(&shown.stderr).contains("cat"), "{shown:?}");
    let canned = guest(home, &["render", request, "--model", "canned"]);
    assert_eq!(text(&canned.stdout), "canned\n");
    let unknown = guest(home, &["render", request, "--model", "nope"]);
    assert!(!unknown.status.success() && text(&unknown.stderr).contains("`nope` does not exist"));
    // The service shows the same.
    let shown = |body: Value| {
        let request = host.client().post(host.url("/admin/render"));
        async move {
            let answer = request.json(&body).send().await.unwrap();
            (
                answer.status().as_u16(),
                answer.json::<Value>().await.unwrap(),
            )
        }
    };
    let (status, over_http) = shown(body.clone()).await;
    assert_eq!(
        (
            status,
            &over_http["backend"],
            &over_http["written"],
            &over_http["answer"]
        ),
        (
            200,
            &json!("echo"),
            &json!(["I am <EMAIL_1>"]),
            &Value::Null
        ),
        "{over_http}"
    );
    let refused = shown(json!({"model": "nope", "messages": [{"role": "user", "content": "x"}]}));
    assert_refused(
        &refused.await,
        (404, "model_not_found"),
        "`nope` does not exist",
    );
    // Another API's body becomes the same, once its dialect is compiled.
    let message_body = json!({"model": "echo", "max_tokens": 100, "messages": body["messages"]});
    let trial = json!({"path": "/v1/messages", "request": message_body});
    let told = poll::until("the dialect", Duration::from_secs(60), async || {
        let (status, told) = shown(trial.clone()).await;
        (status == 200).then_some(told)
    })
    .await;
    assert_eq!(told["written"], over_http["written"]);
    for (path, request, param) in [
        ("/v1/nothing", json!({}), "path"),
        ("/v1/messages", json!({"model": "echo"}), "messages"),
    ] {
        let (status, error) = shown(json!({"path": path, "request": request})).await;
        assert_eq!(
            (status, &error["error"]["param"]),
            (400, &json!(param)),
            "{error}"
        );
    }
    // What the service does is what was shown.
    let (status, answer) = host.post(&body).await;
    assert_eq!(
        (status, &message(&answer)["content"]),
        (200, &json!("[m I am ann@example.org]"))
    );
}

#[tokio::test]
async fn only_a_component_with_an_allowed_digest_is_loaded() {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join("guests.d")).unwrap();
    std::fs::write(home.path().join("guests.d/meddler.wasm"), meddler(0)).unwrap();
    let host = Host::start_in(home, CONFIG);
    let first = poll::until("the guest", Duration::from_secs(120), async || {
        Some(digest(&host).await).filter(|digest| !digest.is_empty())
    })
    .await;
    let allowed = format!("{CONFIG}\n[guests.meddler]\nallowed_digests = [\"sha256:{first}\"]\n");
    host.reconfigure(&allowed);
    host.reload().await;
    assert_eq!(digest(&host).await, first);
    std::fs::write(host.home().join("guests.d/meddler.wasm"), meddler(1)).unwrap();
    let report = host.reload().await;
    let told = report["rejected"]["meddler"].as_str().unwrap_or_default();
    assert!(
        told.contains("its digest is not in `guests.NAME.allowed_digests`: sha256:"),
        "{report}"
    );
    assert_eq!(digest(&host).await, first, "what served goes on");
    host.reconfigure(&allowed.replace("sha256:", "md5:"));
    host.reload().await;
    host.logged("guests.meddler.allowed_digests[0]").await;
}

#[tokio::test]
async fn a_component_is_checked_as_the_service_would() {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join("guests.d")).unwrap();
    let file = home.path().join("meddler.wasm");
    std::fs::write(&file, meddler(0)).unwrap();
    std::fs::write(home.path().join("guests.d/meddler.wasm"), meddler(0)).unwrap();
    std::fs::write(home.path().join("harness.toml"), CONFIG).unwrap();
    let good = guest(home.path(), &["check", file.to_str().unwrap()]);
    let told = text(&good.stdout);
    assert!(
        good.status.success() && told.contains("transform 1.0.0") && told.contains("KiB"),
        "{good:?}"
    );
    std::fs::write(&file, "rubbish").unwrap();
    let bad = guest(home.path(), &["check", file.to_str().unwrap()]);
    assert!(
        !bad.status.success() && text(&bad.stderr).contains("not a WebAssembly component"),
        "{bad:?}"
    );
    // One mistake of a configuration is told, though the other use of the guest is right.
    std::fs::write(&file, meddler(0)).unwrap();
    let config = CONFIG.replace("mark = \"m\"", "colour = \"m\"");
    std::fs::write(home.path().join("harness.toml"), config).unwrap();
    let wrong = guest(home.path(), &["check", file.to_str().unwrap()]);
    assert!(
        !wrong.status.success() && text(&wrong.stderr).contains("colour"),
        "{wrong:?}"
    );
}

#[tokio::test]
async fn a_guest_that_breaks_one_request_after_the_other_gives_way_to_the_one_before() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let good = std::fs::read(root.join("guests/dist/system-prompt.wasm")).unwrap();
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join("guests.d")).unwrap();
    std::fs::write(home.path().join("guests.d/meddler.wasm"), &good).unwrap();
    let config = r#"
        [backends.echo]
        profile = "generic"
        command = "cat"
        [guests.prompt-template]
        config = { template = "{{ messages[-1].content }}" }
        [guests.meddler]
        give_way_after = 3
        [models.echo]
        backend = "echo"
        transforms = ["meddler"]
        "#;
    let host = Host::start_in(home, config);
    let first = poll::until("the guest", Duration::from_secs(120), async || {
        Some(digest(&host).await).filter(|digest| !digest.is_empty())
    })
    .await;
    let second = deploy(&host, 0).await;
    // Three breaks, but a request that went well is among them.
    for (text, status) in [("#trap", 502), ("#trap", 502), ("x", 200), ("#trap", 502)] {
        assert_eq!(host.ask("echo", text).await.0, status, "{text}");
    }
    assert_eq!(host.reload().await["changed"], json!([]));
    assert_eq!(digest(&host).await, second);
    for _ in 0..2 {
        assert_eq!(host.ask("echo", "#trap").await.0, 502);
    }
    becomes(&host, &first).await;
    let (status, answer) = host.ask("echo", "#trap").await;
    assert_eq!(
        (status, &message(&answer)["content"]),
        (200, &json!("#trap"))
    );
    host.logged("it broke 3 requests in a row, so the component before takes its place")
        .await;
}

/// What `meddler` does with `{"mark": "m"}`.
const CASE: &str = r#"{"call":"configure","config":{"mark":"m"}}
{"call":"open","request":{"messages":[{"role":"user","content":"Hi"}]}}
{"rewrite":{"messages":[{"role":"user","content":"Hi"}]},"filter":true}
{"call":"take","deltas":[{"content":"Hello"}]}
{"forward":[{"content":"[m Hello]"}]}
{"call":"finish","finish_reason":"stop"}
{"end":{"deltas":[],"finish_reason":"stop"}}
"#;

#[tokio::test]
async fn a_new_component_serves_only_if_it_repeats_the_cases_beside_it() {
    let host = start();
    let first = poll::until("the guest", Duration::from_secs(120), async || {
        Some(digest(&host).await).filter(|digest| !digest.is_empty())
    })
    .await;
    let cases = host.home().join("guests.d/meddler.cases");
    std::fs::create_dir(&cases).unwrap();
    std::fs::write(cases.join("mark.jsonl"), CASE).unwrap();
    let second = deploy(&host, 1).await;
    assert_ne!(second, first);

    let other = CASE.replace("[m Hello]", "[n Hello]");
    std::fs::write(cases.join("mark.jsonl"), other).unwrap();
    std::fs::write(host.home().join("guests.d/meddler.wasm"), meddler(2)).unwrap();
    let refused = poll::until("the refusal", Duration::from_secs(120), async || {
        let (_, health) = host.get("/health").await;
        let rejected = &health["guests"]["meddler"]["rejected"];
        rejected.as_str().map(str::to_owned)
    })
    .await;
    let told = r#"it does not repeat the case `mark`, line 5: recorded {"forward":[{"content":"[n Hello]"}]}, now {"forward":[{"content":"[m Hello]"}]}"#;
    assert!(refused.contains(told), "{refused}");
    assert_eq!(digest(&host).await, second, "what served goes on");

    std::fs::write(cases.join("mark.jsonl"), "{\"call\":\"dance\"}\n").unwrap();
    std::fs::write(host.home().join("guests.d/meddler.wasm"), meddler(3)).unwrap();
    let report = poll::until("the other refusal", Duration::from_secs(120), async || {
        let (_, health) = host.get("/health").await;
        let rejected = health["guests"]["meddler"]["rejected"].as_str()?.to_owned();
        rejected.contains("mark, line 1").then_some(rejected)
    })
    .await;
    assert!(report.contains("unknown variant `dance`"), "{report}");
}

#[test]
fn cases_are_repeated_and_recorded_by_the_command() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("meddler.wasm"), meddler(0)).unwrap();
    let cases = home.path().join("cases");
    std::fs::create_dir(&cases).unwrap();
    let test = |more: &[&str]| {
        let mut command = Command::new(program());
        command.args(["guest", "test", "meddler.wasm", "cases"]);
        command.args(more).current_dir(home.path());
        command.output().unwrap()
    };
    let none = test(&[]);
    assert!(
        text(&none.stderr).contains("cases has no cases"),
        "{none:?}"
    );

    std::fs::write(cases.join("mark.jsonl"), CASE).unwrap();
    let same = test(&[]);
    assert_eq!(text(&same.stdout), "ok       mark\n", "{same:?}");
    // Only what the host does is written down; the rest is recorded.
    let calls: String = CASE
        .lines()
        .filter(|line| line.contains("\"call\""))
        .map(|line| format!("{line}\n"))
        .collect();
    std::fs::write(cases.join("mark.jsonl"), calls).unwrap();
    let differs = test(&[]);
    assert!(!differs.status.success());
    let told = text(&differs.stdout);
    assert!(
        told.contains("differs  mark, line 2\n  recorded nothing\n  now      {\"rewrite\""),
        "{told}"
    );
    assert!(test(&["--update"]).status.success());
    let recorded = std::fs::read_to_string(cases.join("mark.jsonl")).unwrap();
    assert_eq!(recorded, CASE);
    // A call that fits nothing, and one that breaks the guest.
    std::fs::write(cases.join("mark.jsonl"), "{\"call\":\"start\"}\n").unwrap();
    let wrong = test(&[]);
    assert!(
        text(&wrong.stderr).contains("mark, line 1: there is no session"),
        "{wrong:?}"
    );
    let broken = r#"{"call":"configure","config":{"at":"open","do":"trap"}}
{"call":"open","request":{"messages":[{"role":"user","content":"Hi"}]}}
"#;
    std::fs::write(cases.join("mark.jsonl"), broken).unwrap();
    let broken = test(&[]);
    assert!(
        text(&broken.stdout).contains("{\"broken\":\"it trapped: "),
        "{broken:?}"
    );
    assert!(text(&broken.stdout).contains("(in `open`)"), "{broken:?}");
}

#[test]
fn a_new_guest_is_made_where_nothing_is_yet() {
    let home = tempfile::tempdir().unwrap();
    let make = |name: &str| {
        let mut command = Command::new(program());
        command.args(["guest", "new", name, "--world", "transform", "--lang", "js"]);
        command.current_dir(home.path()).output().unwrap()
    };
    let made = make("my-guest");
    assert!(made.status.success(), "{made:?}");
    let folder = home.path().join("my-guest");
    let source = std::fs::read_to_string(folder.join("guest.js")).unwrap();
    assert!(source.contains("name: 'my-guest'"), "{source}");
    assert!(!source.contains("NAME"), "{source}");
    let again = make("my-guest");
    assert!(text(&again.stderr).contains("my-guest is there already"));
    let odd = make("My Guest");
    assert!(text(&odd.stderr).contains("use lower-case letters"));

    let build = |project: &str| {
        std::fs::write(folder.join("guest.toml"), project).unwrap();
        let mut command = Command::new(program());
        command.args(["guest", "build", "my-guest"]);
        let output = command.current_dir(home.path()).output().unwrap();
        assert!(!output.status.success());
        text(&output.stderr).to_owned()
    };
    let missing = build("name = \"g\"\noutput = \"g.wasm\"\nbuild = [[\"no-such-tool\"]]\n");
    assert!(
        missing.contains("there is no `no-such-tool`: install it"),
        "{missing}"
    );
    let fails = build("name = \"g\"\noutput = \"g.wasm\"\nbuild = [[\"false\"]]\n");
    assert!(fails.contains("`false` failed (exit status: 1)"), "{fails}");
    let nothing = build("name = \"g\"\noutput = \"g.wasm\"\nbuild = []\n");
    assert!(nothing.contains("cannot read my-guest/g.wasm"), "{nothing}");
    let typo = build("name = \"g\"\noutputs = \"g.wasm\"\nbuild = []\n");
    assert!(
        typo.contains("guest.toml") && typo.contains("outputs"),
        "{typo}"
    );
}

#[tokio::test]
async fn a_case_is_recorded_from_a_live_request_without_its_content() {
    let host = start();
    poll::until("the transform", Duration::from_secs(120), async || {
        Some(digest(&host).await).filter(|digest| !digest.is_empty())
    })
    .await;
    let record = async |more: &[&str]| {
        let file = host.home().join("case.jsonl");
        let url = format!("http://{}", host.authority());
        let mut arguments = vec!["record", "meddler", "--url", &url, "--wait", "60"];
        arguments.extend(["--into", file.to_str().unwrap()]);
        arguments.extend(more);
        let asked = async { guest_in_background(host.home(), &arguments).await };
        let served = async {
            // Until the command listens, requests pass unrecorded.
            poll::until("the recording", Duration::from_secs(60), async || {
                let (status, answer) = host.ask("echo", "Ada has 36 apples").await;
                assert_eq!(status, 200, "{answer}");
                file.exists().then_some(())
            })
            .await;
        };
        let (output, ()) = tokio::join!(asked, served);
        assert!(output.status.success(), "{}", text(&output.stderr));
        std::fs::read_to_string(file).unwrap()
    };
    let case = record(&[]).await;
    assert!(!case.contains("Ada") && !case.contains("apples"), "{case}");
    assert!(case.contains("Xxx xxx 11 xxxxxx"), "{case}");
    let lines: Vec<Value> = case
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let calls: Vec<&str> = lines
        .iter()
        .filter_map(|line| line["call"].as_str())
        .collect();
    assert_eq!(
        (calls[0], calls[1], calls.last()),
        ("configure", "open", Some(&"finish"))
    );
    assert!(
        lines.iter().any(|line| line.get("forward").is_some()),
        "{case}"
    );

    // The component repeats what was recorded of it.
    let folder = host.home().join("cases");
    std::fs::create_dir(&folder).unwrap();
    std::fs::rename(host.home().join("case.jsonl"), folder.join("one.jsonl")).unwrap();
    let component = host.home().join("guests.d/meddler.wasm");
    let tested = Command::new(program())
        .args(["guest", "test"])
        .args([component.as_os_str(), folder.as_os_str()])
        .env_clear()
        .env("HOME", host.home())
        .output()
        .unwrap();
    assert!(tested.status.success(), "{}", text(&tested.stderr));

    let case = record(&["--keep-content"]).await;
    assert!(case.contains("Ada has 36 apples"), "{case}");
}

async fn guest_in_background(home: &Path, arguments: &[&str]) -> Output {
    let home = home.to_owned();
    let arguments: Vec<String> = arguments
        .iter()
        .map(|&argument| argument.to_owned())
        .collect();
    let run = tokio::task::spawn_blocking(move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        guest(&home, &arguments)
    });
    run.await.unwrap()
}
