//! The host's part in a case.

use std::sync::Arc;

use serde_json::{Value, json};

use super::ReadRequest;
use super::words::{self, Call, CaseContext, Piece};
use crate::GuestError;
use crate::adapter::AdapterSession;
use crate::admit::{Guest, World};
use crate::completion::{Context, Delta, Outcome};
use crate::contract::v1_0::Effects;
use crate::dialect::{self, DialectCall};
use crate::http::{HttpRequest, OfferedModel};
use crate::instance::{Configured, NotOpened, configured};
use crate::report::Question;
use crate::transform::{self, Filter};

/// A guest in the course of a case.
pub(super) struct Dialogue<'a> {
    guest: &'a Arc<Guest>,
    read_request: ReadRequest,
    config: Arc<str>,
    request: InRequest,
    /// Bytes of the request.
    size: usize,
}

/// What there is of a request.
enum InRequest {
    /// It did not begin, or it is over.
    None,
    Session(Box<AdapterSession>),
    Filter(Box<Filter>),
    Dialect(Box<DialectCall>),
}

impl<'a> Dialogue<'a> {
    pub(super) fn new(guest: &'a Arc<Guest>, read_request: ReadRequest) -> Self {
        Dialogue {
            guest,
            read_request,
            config: "{}".into(),
            request: InRequest::None,
            size: 0,
        }
    }

    /// Makes a call. Returns what the guest did, one value for each thing.
    ///
    /// # Errors
    ///
    /// Fails if the call makes no sense here.
    pub(super) fn call(&mut self, call: Call) -> Result<Vec<Value>, String> {
        match call {
            Call::Configure { config } => Ok(self.configure(&config)),
            Call::Open { context, request } => self.open(context, request),
            Call::LaunchOptions => self.session(|session, _| {
                let options = session.launch_options()?;
                Ok(vec![json!({"launch_options": options})])
            }),
            Call::Probe { context, question } => self.probe(context, question),
            Call::Want => {
                self.session(|session, size| Ok(vec![words::wanted(session.want(size)?)]))
            }
            Call::Interrupt => self.session(|session, _| match session.interrupt()? {
                Some(told) => effects(told),
                None => Ok(Vec::new()),
            }),
            Call::Hold => self.session(|session, size| Ok(vec![words::held(session.hold(size)?)])),
            Call::Resume(resumption) => {
                self.session(|session, size| effects(session.resume(&resumption.into(), size)?))
            }
            Call::Start => self.session(|session, size| effects(session.start(size)?)),
            Call::Output { lines } => self.session(|session, size| {
                let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
                effects(session.output(&lines, size)?)
            }),
            Call::Exit { status, stderr } => {
                self.session(|session, _| effects(session.exit(status, &stderr)?))
            }
            Call::Take { choice, deltas } => self.take(choice, deltas),
            Call::Finish { outcome } => self.finish(&outcome.into()),
            Call::Http { context, request } => self.http(context, &request.into()),
            Call::Begin => self.dialect(|call| {
                let head = call.begin()?;
                Ok(head.iter().map(words::head).collect())
            }),
            Call::Serve => self.of_dialect(|of, context| {
                let service = dialect::serve(of, context)?;
                Ok(words::served(&service))
            }),
            Call::RenderError(failure) => self.of_dialect(|of, context| {
                let reply = dialect::render_error(of, context, &failure.into())?;
                Ok(words::reply(&reply))
            }),
            Call::KeepAlive => self.dialect(|call| Ok(vec![json!({"body": call.keep_alive()?})])),
            Call::Fail(failure) => self.last_of_dialect(|call| {
                let body = call.fail(&failure.into())?;
                Ok(json!({"body": body}))
            }),
            Call::ListModels { models } => self.last_of_dialect(|call| {
                let models = models.into_iter().map(|id| OfferedModel {
                    id,
                    owner: "backend".into(),
                    context_length: None,
                });
                let reply = call.list_models(&models.collect::<Vec<_>>())?;
                Ok(words::reply(&reply))
            }),
            Call::EndChoice { choice, outcome } => self.dialect(|call| {
                let body = call.end_choice(choice, &outcome.into())?;
                Ok(vec![json!({"body": body})])
            }),
        }
    }

    fn take(&mut self, choice: u32, deltas: Vec<Piece>) -> Result<Vec<Value>, String> {
        let deltas: Vec<Delta> = deltas.into_iter().map(Delta::from).collect();
        let told = match &mut self.request {
            InRequest::Filter(filter) => filter.take(&deltas).map(words::step),
            InRequest::Dialect(call) => {
                let body = call.take(choice, &deltas);
                body.map(|body| json!({"body": body}))
            }
            _ => return Err("nothing watches the answer".into()),
        };
        Ok(vec![told.unwrap_or_else(|error| self.broken(&error))])
    }

    fn finish(&mut self, outcome: &Outcome) -> Result<Vec<Value>, String> {
        let told = match std::mem::replace(&mut self.request, InRequest::None) {
            InRequest::Filter(filter) => match filter.finish(outcome, self.size) {
                Ok(Ok(ending)) => Ok(words::ending(ending)),
                Ok(Err(error)) => Ok(json!({"fail": words::failure(&error)})),
                Err(error) => Err(error),
            },
            InRequest::Dialect(call) => call.finish(self.size).map(|body| json!({"body": body})),
            _ => return Err("nothing watches the answer".into()),
        };
        Ok(vec![told.unwrap_or_else(|error| self.broken(&error))])
    }

    fn http(&mut self, context: CaseContext, http: &HttpRequest) -> Result<Vec<Value>, String> {
        if self.guest.world() != World::Dialect {
            return Err("the guest is no dialect".into());
        }
        self.size = http.body.len();
        let opened = dialect::open(self.configured(), &context.of("model"), http);
        Ok(vec![match opened {
            Ok(dialect::Opened::Reply(reply)) => words::reply(&reply),
            Ok(dialect::Opened::Models(call)) => {
                self.request = InRequest::Dialect(call);
                json!({"models": true})
            }
            Ok(dialect::Opened::Completion {
                model,
                choices,
                request,
                call,
            }) => {
                self.request = InRequest::Dialect(call);
                words::completion(&model, choices, &request)
            }
            Err(why) => self.not_opened(why),
        }])
    }

    /// Calls the dialect's call that is on its way.
    fn dialect(
        &mut self,
        call: impl FnOnce(&mut DialectCall) -> Result<Vec<Value>, GuestError>,
    ) -> Result<Vec<Value>, String> {
        let InRequest::Dialect(on_its_way) = &mut self.request else {
            return Err("there is no call of a dialect".into());
        };
        let done = call(on_its_way);
        Ok(done.unwrap_or_else(|error| vec![self.broken(&error)]))
    }

    /// Makes the last call of the dialect's call that is on its way.
    fn last_of_dialect(
        &mut self,
        call: impl FnOnce(DialectCall) -> Result<Value, GuestError>,
    ) -> Result<Vec<Value>, String> {
        let InRequest::Dialect(on_its_way) = std::mem::replace(&mut self.request, InRequest::None)
        else {
            return Err("there is no call of a dialect".into());
        };
        let done = call(*on_its_way);
        Ok(vec![done.unwrap_or_else(|error| self.broken(&error))])
    }

    /// Calls a dialect apart from any call of its API.
    fn of_dialect(
        &mut self,
        call: impl FnOnce(&Configured, &Context) -> Result<Value, GuestError>,
    ) -> Result<Vec<Value>, String> {
        if self.guest.world() != World::Dialect {
            return Err("the guest is no dialect".into());
        }
        let context = CaseContext::default().of("model");
        let done = call(&self.configured(), &context);
        Ok(vec![done.unwrap_or_else(|error| self.broken(&error))])
    }

    fn configured(&self) -> Configured {
        Configured {
            guest: self.guest.clone(),
            config: self.config.clone(),
        }
    }

    fn not_opened(&mut self, why: NotOpened) -> Value {
        match why {
            NotOpened::Refused(error) => json!({"refuse": words::failure(&error)}),
            NotOpened::Broken(error) => self.broken(&error),
        }
    }

    fn configure(&mut self, config: &Value) -> Vec<Value> {
        self.config = config.to_string().into();
        match configured(self.guest, &self.config, None) {
            Ok(Ok(_)) => Vec::new(),
            Ok(Err(problems)) => vec![json!({"problems": problems})],
            Err(error) => vec![self.broken(&error)],
        }
    }

    fn open(&mut self, context: CaseContext, mut request: Value) -> Result<Vec<Value>, String> {
        let fields = request.as_object_mut().ok_or("`request` is no object")?;
        let model = fields.entry("model").or_insert_with(|| json!("model"));
        let model = model
            .as_str()
            .ok_or("`request.model` is no string")?
            .to_owned();
        let text = request.to_string();
        self.size = text.len();
        let request = (self.read_request)(&text)?;
        let context = context.of(&model);
        let of = self.configured();
        let opened = match self.guest.world() {
            World::Dialect => return Err("a dialect is opened by `http`".into()),
            World::Adapter => {
                AdapterSession::open(of, &context, &request, self.size).map(|session| {
                    self.request = InRequest::Session(Box::new(session));
                    Vec::new()
                })
            }
            World::Transform => {
                transform::open(&of, &context, &request, self.size).map(|(decision, filter)| {
                    let told = words::decision(decision, filter.is_some());
                    self.request = match filter {
                        Some(filter) => InRequest::Filter(Box::new(filter)),
                        None => InRequest::None,
                    };
                    vec![told]
                })
            }
        };
        Ok(opened.unwrap_or_else(|why| vec![self.not_opened(why)]))
    }

    fn probe(&mut self, context: CaseContext, question: Question) -> Result<Vec<Value>, String> {
        if self.guest.world() != World::Adapter {
            return Err("the guest is no adapter".into());
        }
        match AdapterSession::probe(self.configured(), &context.of("model"), question) {
            Ok(Some(session)) => {
                self.request = InRequest::Session(Box::new(session));
                Ok(vec![json!({"probe": true})])
            }
            Ok(None) => Ok(vec![json!({"probe": false})]),
            Err(error) => Ok(vec![self.broken(&error)]),
        }
    }

    /// Calls the session that is open.
    fn session(
        &mut self,
        call: impl FnOnce(&mut AdapterSession, usize) -> Result<Vec<Value>, GuestError>,
    ) -> Result<Vec<Value>, String> {
        let size = self.size;
        let InRequest::Session(session) = &mut self.request else {
            return Err("there is no session".into());
        };
        let done = call(session, size);
        Ok(done.unwrap_or_else(|error| vec![self.broken(&error)]))
    }

    /// The guest broke a bound or a rule, so its request is over.
    fn broken(&mut self, error: &GuestError) -> Value {
        self.request = InRequest::None;
        json!({"broken": error.to_string()})
    }
}

fn effects(effects: Effects) -> Result<Vec<Value>, GuestError> {
    effects.map(|effect| effect.map(words::effect)).collect()
}
