//! A dialect that does what its configuration tells it, good or bad: for the tests of the host's bounds.
//!
//! `{"at": "take", "do": "spin"}` spins in `take`. Otherwise it echoes.

use std::cell::RefCell;

use harness_guest::schemars::JsonSchema;
use harness_guest::{
    ApiError, Context, Delta, Description, Dialect, Failure, Header, HttpHead, HttpRequest,
    HttpResponse, OfferedModel, OpenedCall, Outcome, Problem, Service, route, testing,
};

/// What to do, and when.
#[derive(Clone, Debug, Default, serde::Deserialize, JsonSchema)]
#[schemars(crate = "harness_guest::schemars")]
#[serde(default, deny_unknown_fields)]
pub struct Behaviour {
    /// The function in which it happens.
    pub at: String,
    /// What happens.
    pub r#do: String,
}

thread_local! {
    /// What the instance was told: an error is written without its settings.
    static BEHAVIOUR: RefCell<Behaviour> = RefCell::default();
}

/// A call that does what it is told.
#[derive(Debug)]
pub struct Hostile(Behaviour);

impl Behaviour {
    /// Does the deed if it is due here, and returns a text.
    fn text(&self, here: &str) -> String {
        if self.at != here {
            return here.to_owned();
        }
        hostile_deeds::act(&self.r#do);
        hostile_deeds::text(&self.r#do).unwrap_or_else(|| here.to_owned())
    }

    /// The same, with countless headers where that is the deed.
    fn headers(&self, here: &str) -> Vec<Header> {
        let due = if self.at == here { &*self.r#do } else { "" };
        let header = Header {
            name: "x".into(),
            value: "y".into(),
        };
        vec![header; hostile_deeds::count(due)]
    }
}

impl Dialect for Hostile {
    type Settings = Behaviour;

    fn describe() -> Description {
        Description {
            config_schema: harness_guest::schema::<Behaviour>(),
            ..harness_guest::description("hostile-dialect", "0", "does what it is told")
        }
    }

    fn configure(config: &str) -> Result<Behaviour, Vec<Problem>> {
        let behaviour: Behaviour = harness_guest::settings(config)?;
        match (&*behaviour.at, &*behaviour.r#do) {
            ("configure", deed @ ("huge" | "no-text")) => Err(vec![Problem {
                key: String::new(),
                message: hostile_deeds::text(deed).unwrap_or_default(),
            }]),
            ("configure", deed) => {
                hostile_deeds::act(deed);
                Ok(behaviour)
            }
            _ => {
                BEHAVIOUR.set(behaviour.clone());
                Ok(behaviour)
            }
        }
    }

    fn serve(behaviour: &Behaviour) -> Service {
        let path = match &*behaviour.text("serve") {
            "serve" => "/hostile".to_owned(),
            deed => deed.to_owned(),
        };
        let due = if behaviour.at == "serve" {
            &*behaviour.r#do
        } else {
            ""
        };
        Service {
            routes: vec![route("POST", &path); hostile_deeds::count(due).max(1)],
            key_headers: Vec::new(),
            headers: Vec::new(),
            extra: None,
        }
    }

    fn open(
        behaviour: &Behaviour,
        _context: Context,
        _http: HttpRequest,
    ) -> Result<OpenedCall<Self>, ApiError> {
        let message = serde_json::json!({"role": "user", "content": "hi"});
        let mut request = testing::request(&serde_json::json!({"messages": [message]}));
        let due = if behaviour.at == "open" {
            &*behaviour.r#do
        } else {
            ""
        };
        let more = hostile_deeds::count(due);
        request.messages = vec![request.messages.remove(0); more.max(1)];
        Ok(OpenedCall::Completion {
            model: behaviour.text("open"),
            choices: 1,
            request: Box::new(request),
            call: Hostile(behaviour.clone()),
        })
    }

    fn render_error(failure: Failure) -> HttpResponse {
        let behaviour = BEHAVIOUR.take();
        let body = match &*behaviour.text("render-error") {
            "render-error" => failure.message,
            deed => deed.into(),
        };
        HttpResponse {
            status: failure.status,
            headers: behaviour.headers("render-error"),
            body,
        }
    }

    fn begin(&mut self) -> Option<HttpHead> {
        Some(HttpHead {
            status: 200,
            content_type: self.0.text("begin"),
            headers: self.0.headers("begin"),
        })
    }

    fn take(&mut self, _choice: u32, _deltas: Vec<Delta>) -> String {
        self.0.text("take")
    }

    fn end_choice(&mut self, _choice: u32, _outcome: Outcome) -> String {
        self.0.text("end-choice")
    }

    fn finish(&mut self) -> String {
        self.0.text("finish")
    }

    fn fail(&mut self, _failure: Failure) -> String {
        self.0.text("fail")
    }

    fn keep_alive(&self) -> String {
        self.0.text("keep-alive")
    }

    fn list_models(&mut self, _models: Vec<OfferedModel>) -> HttpResponse {
        HttpResponse {
            status: 200,
            headers: self.0.headers("list-models"),
            body: self.0.text("list-models"),
        }
    }
}

harness_guest::export_dialect!(Hostile);
