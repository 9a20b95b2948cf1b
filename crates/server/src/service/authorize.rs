//! From a request to its answer: route, who asks, whether they may, and what they get.

use everpoint_api::{ApiError, Code};
use everpoint_repository::InstanceName;
use jiff::Timestamp;

use super::Service;
use crate::{
    access::{Action, PrincipalId, Scope, SubscriptionId, decide, may_see},
    audit::{Entry, Outcome},
    handlers,
    http::{Answer, Method, Missing, Need, Parameters, Route, decoded_segments, find, query_pairs},
};

/// The longest path, and the longest query, in bytes.
const MAX_ADDRESS_BYTES: usize = 8 << 10;
/// The longest name in a path, in bytes: of a resource group in Azure with its letters, of a database in PostgreSQL.
const MAX_NAME_BYTES: usize = 360;

/// A request.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Its method, if it is one that any route has.
    pub method: Option<Method>,
    /// Its path, as sent.
    pub path: &'a str,
    /// Its query, as sent.
    pub query: &'a str,
    /// Its bearer token.
    pub token: Option<&'a str>,
    /// Its `X-IDENTITY-HEADER`, which programs send that run as managed identities.
    pub identity_header: Option<&'a str>,
    /// Its body.
    pub body: &'a [u8],
}

/// A request that may be answered.
#[derive(Debug)]
pub struct Caller<'a> {
    /// Who asks; nobody where nothing is needed.
    pub principal: Option<PrincipalId>,
    /// What the path names.
    pub parameters: Parameters,
    /// The query's pairs.
    pub query: Vec<(String, String)>,
    /// The scope that the path names; the subscription where it names none.
    pub scope: Scope,
    /// The secret of a program that runs as a managed identity.
    pub identity_header: Option<&'a str>,
    /// The body.
    pub body: &'a [u8],
    /// The path, as sent.
    pub path: &'a str,
}

impl Caller<'_> {
    /// The value of a parameter of the query, in any case.
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query
            .iter()
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// [`Code::InvalidRequestContent`].
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, ApiError> {
        // A list would be read as an object's members in their order.
        let is_object = self.body.trim_ascii_start().first() == Some(&b'{');
        let read = match is_object {
            true => serde_json::from_slice(self.body),
            false => Err(serde::de::Error::custom("it is no object")),
        };
        read.map_err(|error: serde_json::Error| {
            let text = format!("the body is not the JSON that is expected here: {error}");
            ApiError::new(Code::InvalidRequestContent, text)
        })
    }

    /// The instance that the path names.
    ///
    /// # Errors
    /// [`Code::ResourceNotFound`] when no instance can have such a name.
    pub fn instance_name(&self) -> Result<InstanceName, ApiError> {
        let text = self.parameters.get("instance");
        let name = text.to_ascii_lowercase().parse();
        name.map_err(|_| {
            ApiError::new(
                Code::ResourceNotFound,
                format!("there is no instance `{text}`"),
            )
            .about(text)
        })
    }
}

impl Service {
    /// Answers a request.
    pub async fn answer(&self, wanted: &Wanted<'_>) -> Answer {
        match self.try_answer(wanted).await {
            Ok(answer) => answer,
            Err(error) if error.code == Code::MethodNotAllowed => {
                Answer::from(error).with("allow", allowed(wanted.path))
            }
            Err(error) => error.into(),
        }
    }

    async fn try_answer(&self, wanted: &Wanted<'_>) -> Result<Answer, ApiError> {
        if wanted.path.len().max(wanted.query.len()) > MAX_ADDRESS_BYTES {
            let text = format!("path and query may have {MAX_ADDRESS_BYTES} bytes each");
            return Err(ApiError::new(Code::InvalidParameterValue, text));
        }
        let segments = decoded_segments(wanted.path).ok_or_else(|| {
            ApiError::new(
                Code::InvalidParameterValue,
                "the path is not UTF-8, has control characters, or is too deep",
            )
        })?;
        let (route, parameters) =
            find(wanted.method, &segments).map_err(|missing| match missing {
                Missing::Path => {
                    let text = format!("there is no resource at {}", wanted.path);
                    ApiError::new(Code::InvalidResourceType, text)
                }
                Missing::Method => {
                    let text = format!("{} does not take this method", wanted.path);
                    ApiError::new(Code::MethodNotAllowed, text)
                }
            })?;
        let mut caller = Caller {
            principal: None,
            scope: self.scope_of(&parameters)?,
            parameters,
            query: query_pairs(wanted.query),
            identity_header: wanted.identity_header,
            body: wanted.body,
            path: wanted.path,
        };
        if route.need != Need::Nothing {
            let principal = self.authenticate(wanted.token).await?;
            caller.principal = Some(principal);
            self.authorize(route, principal, &caller.scope)?;
            self.check_place(&caller)?;
        }
        if wanted.path.len() > 1
            && segments
                .first()
                .is_some_and(|first| first.eq_ignore_ascii_case("subscriptions"))
        {
            check_api_version(caller.query("api-version"))?;
        }
        handlers::answer(self, route.endpoint, &caller).await
    }

    async fn authenticate(&self, token: Option<&str>) -> Result<PrincipalId, ApiError> {
        let refuse = |text| Err(ApiError::new(Code::AuthenticationFailed, text));
        let Some(token) = token else {
            return refuse("the request carries no bearer token. Get one from the token endpoint");
        };
        let principals = self.principals();
        let row = |id| principals.iter().find(|row| row.id == id);
        if let Some(id) = self.signer.principal(token) {
            // A principal that was removed or disabled keeps its tokens and may do nothing.
            if row(id).is_some_and(|row| row.is_enabled() && row.external.is_none()) {
                return Ok(id);
            }
        } else if let Some(issuer) = self.issuer()
            && let Some(found) = issuer.external(token).await
        {
            match row(found.id) {
                // Nobody could assign it a role: it may do nothing, and is told under which id it may be added.
                None => return Ok(found.id),
                // That the ids are equal does not make it one that signs in here.
                Some(row) if row.is_enabled() && row.external == Some(found.value) => {
                    return Ok(found.id);
                }
                Some(_) => {}
            }
        }
        refuse("the token is not this service's, or no longer valid. Get a new one")
    }

    /// Decides and writes the decision down. What cannot be written down is not allowed.
    fn authorize(
        &self,
        route: &Route,
        principal: PrincipalId,
        scope: &Scope,
    ) -> Result<(), ApiError> {
        if matches!(route.need, Need::Nothing | Need::Token) {
            return Ok(());
        }
        self.decide(route.need, route.method, principal, scope)
    }

    /// That whoever asks has another right, too, besides the one that its path needs.
    ///
    /// # Errors
    /// [`Code::AuthorizationFailed`].
    pub fn require(
        &self,
        caller: &Caller<'_>,
        action: Action,
        scope: &Scope,
    ) -> Result<(), ApiError> {
        let principal = caller.principal.ok_or_else(|| {
            let text = "the request carries no bearer token. Get one from the token endpoint";
            ApiError::new(Code::AuthenticationFailed, text)
        })?;
        self.decide(Need::Right(action), Method::Post, principal, scope)
    }

    fn decide(
        &self,
        need: Need,
        method: Method,
        principal: PrincipalId,
        scope: &Scope,
    ) -> Result<(), ApiError> {
        let (Need::Right(action) | Need::RightBelow(action)) = need else {
            return Ok(());
        };
        let held = self.assignments();
        let given = || held.iter().map(|(assignment, _)| assignment);
        let decision = match need {
            Need::RightBelow(_) if may_see(given(), principal, action, scope) => Ok(None),
            _ => decide(given(), principal, action, scope).map(|found| Some(found.id)),
        };
        let entry = Entry {
            time: Timestamp::now(),
            principal: principal.to_string(),
            action: action.to_string(),
            scope: scope.to_string(),
            outcome: match decision {
                Ok(_) => Outcome::Allowed,
                Err(_) => Outcome::Denied,
            },
            detail: decision
                .as_ref()
                .ok()
                .copied()
                .flatten()
                .map(|id| id.to_string()),
        };
        let written = self.audit.append(&entry).and_then(|()| match method {
            Method::Get => Ok(()),
            _ => self.audit.sync(),
        });
        if let Err(error) = written {
            tracing::error!(error = %crate::chain(&error), "the audit log failed");
            let text = "the audit log cannot be written, so nothing is done. See the service's log";
            return Err(ApiError::new(Code::ServiceUnavailable, text));
        }
        decision.map(|_| ()).map_err(|denied| {
            ApiError::new(Code::AuthorizationFailed, denied.to_string()).about(scope.to_string())
        })
    }

    /// Whether somebody may do something at a scope or below; for leaving out of lists.
    pub fn visible(&self, caller: &Caller<'_>, action: Action) -> impl Fn(&Scope) -> bool + use<> {
        let (held, principal) = (self.assignments(), caller.principal);
        move |scope| {
            let given = held.iter().map(|(assignment, _)| assignment);
            principal.is_some_and(|principal| may_see(given, principal, action, scope))
        }
    }

    /// Whether somebody may do something at a scope itself; for leaving out of lists.
    pub fn permitted(
        &self,
        caller: &Caller<'_>,
        action: Action,
    ) -> impl Fn(&Scope) -> bool + use<> {
        let (held, principal) = (self.assignments(), caller.principal);
        move |scope| {
            let given = held.iter().map(|(assignment, _)| assignment);
            principal.is_some_and(|principal| decide(given, principal, action, scope).is_ok())
        }
    }

    fn scope_of(&self, parameters: &Parameters) -> Result<Scope, ApiError> {
        let Some(text) = parameters.find("subscription") else {
            return Ok(Scope::subscription(self.subscription));
        };
        let id = uuid::Uuid::try_parse(text).map_err(|_| {
            let message = format!("`{text}` is no subscription's identifier");
            ApiError::new(Code::SubscriptionNotFound, message).about(text)
        })?;
        let names = ["group", "instance", "database"];
        let names = names.iter().map_while(|name| parameters.find(name));
        let mut scope = Scope::subscription(id);
        for name in names {
            if name.len() > MAX_NAME_BYTES {
                let text = format!("a name in the path has more than {MAX_NAME_BYTES} bytes");
                return Err(ApiError::new(Code::InvalidParameterValue, text));
            }
            scope = scope.below(name);
        }
        Ok(scope)
    }

    /// That the subscription and the group are there, and the instance in them. Comes after the decision, so that
    /// whoever may not look does not learn it.
    fn check_place(&self, caller: &Caller<'_>) -> Result<(), ApiError> {
        let asked = caller.scope.subscription_id();
        let parameters = &caller.parameters;
        let group = self.known_group(asked, parameters.find("group"))?;
        let (Some(group), Some(text)) = (group, parameters.find("instance")) else {
            return Ok(());
        };
        // One that has no instance's name is refused where it is looked for.
        match text.to_ascii_lowercase().parse::<InstanceName>() {
            Ok(name) if self.group_of(&name) != group => Err(handlers::not_found("instance", text)),
            _ => Ok(()),
        }
    }

    /// A resource group that is named, if it is there.
    ///
    /// # Errors
    /// When the subscription or the group is not.
    pub fn known_group(
        &self,
        subscription: SubscriptionId,
        group: Option<&str>,
    ) -> Result<Option<Scope>, ApiError> {
        let all = self.groups();
        if !all
            .iter()
            .any(|known| known.subscription_id() == subscription)
        {
            let text = format!("there is no subscription {subscription} here");
            return Err(ApiError::new(Code::SubscriptionNotFound, text));
        }
        let Some(name) = group else { return Ok(None) };
        let scope = Scope::subscription(subscription).below(name);
        if !all.contains(&scope) {
            let text = format!("there is no resource group `{name}`");
            return Err(ApiError::new(Code::ResourceGroupNotFound, text).about(name));
        }
        Ok(Some(scope))
    }
}

/// The methods that a path takes.
fn allowed(path: &str) -> String {
    let segments = decoded_segments(path).unwrap_or_default();
    let taken = Method::ALL
        .into_iter()
        .filter(|method| find(Some(*method), &segments).is_ok());
    let names: Vec<&str> = taken.map(Method::as_str).collect();
    names.join(", ")
}

/// Any version of the published form is taken: `2023-08-01`, `2024-05-01-preview`.
fn check_api_version(version: Option<&str>) -> Result<(), ApiError> {
    let Some(version) = version else {
        let text = "the api-version query parameter is required for all requests";
        return Err(ApiError::new(Code::MissingApiVersionParameter, text));
    };
    let date = version.strip_suffix("-preview").unwrap_or(version);
    match date.parse::<jiff::civil::Date>() {
        Ok(_) if date.len() == 10 => Ok(()),
        _ => {
            let text =
                format!("`{version}` is no api-version. Write YYYY-MM-DD or YYYY-MM-DD-preview");
            Err(ApiError::new(Code::InvalidApiVersionParameter, text))
        }
    }
}
