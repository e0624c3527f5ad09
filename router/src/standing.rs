//! How a request stands among those that wait with it: the tenant's share, and what the request says of itself.
//!
//! The parameters `priority` and `timeout` are Triton's (schedule policy extension); `service_class` is the mesh's. What a
//! caller says can only shorten its wait bound or lower its class: its share is the tenant's, and a priority orders a tenant's
//! own requests, never one tenant before another.

use std::time::Duration;

use mesh_types::{Fault, InferRequest, ParameterValue, ServiceClass, Standing, TenantShare};

/// The standing of a request, or what is wrong with its parameters.
pub(crate) fn standing(request: &InferRequest, share: TenantShare, class: ServiceClass) -> Result<Standing, Fault> {
    let class = match request.parameter("service_class") {
        None => class,
        Some(value) => class.max(service_class(value)?),
    };
    let priority = match request.parameter("priority") {
        None => 0,
        // As in Triton, a priority beyond the model's levels takes the model's default.
        Some(value) => whole("priority", value)?.try_into().unwrap_or(u32::MAX),
    };
    let queue_timeout = match request.parameter("timeout") {
        None => None,
        Some(value) => Some(whole("timeout", value)?)
            .filter(|microseconds| *microseconds > 0)
            .map(Duration::from_micros),
    };
    Ok(Standing {
        share,
        class,
        priority,
        queue_timeout,
    })
}

fn service_class(value: &ParameterValue) -> Result<ServiceClass, Fault> {
    match value.as_str() {
        Some("interactive") => Ok(ServiceClass::Interactive),
        Some("batch") => Ok(ServiceClass::Batch),
        _ => Err(Fault::invalid(
            "parameter 'service_class' is 'interactive' or 'batch', as a string",
        )),
    }
}

fn whole(name: &str, value: &ParameterValue) -> Result<u64, Fault> {
    let what = match name {
        "timeout" => "microseconds in the queue",
        _ => "0 for the model's default, else 1 for the highest",
    };
    let wrong = || {
        Fault::invalid(format!(
            "parameter '{name}' is a whole number that is not negative: {what}"
        ))
    };
    value.as_u64().ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(parameters: &[(&str, ParameterValue)], class: ServiceClass) -> Result<Standing, Fault> {
        let mut request = InferRequest::default();
        for (name, value) in parameters {
            request.parameters.insert((*name).to_owned(), value.clone());
        }
        standing(&request, TenantShare::default(), class)
    }

    #[test]
    fn a_request_that_says_nothing_has_the_endpoints_class() {
        assert_eq!(of(&[], ServiceClass::Interactive), Ok(Standing::default()));
        assert_eq!(of(&[], ServiceClass::Batch).unwrap().class, ServiceClass::Batch);
    }

    #[test]
    fn a_caller_lowers_its_class_and_never_raises_it() {
        let say = |text: &str, class| of(&[("service_class", ParameterValue::String(text.into()))], class);
        assert_eq!(
            say("batch", ServiceClass::Interactive).unwrap().class,
            ServiceClass::Batch
        );
        assert_eq!(
            say("interactive", ServiceClass::Batch).unwrap().class,
            ServiceClass::Batch
        );
        assert!(
            say("urgent", ServiceClass::Batch)
                .unwrap_err()
                .message
                .contains("service_class")
        );
    }

    #[test]
    fn tritons_priority_and_timeout_are_read() {
        let numbers = [
            ("priority", ParameterValue::Int(2)),
            ("timeout", ParameterValue::Uint(1_500)),
        ];
        let standing = of(&numbers, ServiceClass::Interactive).unwrap();
        assert_eq!(standing.priority, 2);
        assert_eq!(standing.queue_timeout, Some(Duration::from_micros(1_500)));
        let none = of(&[("timeout", ParameterValue::Int(0))], ServiceClass::Interactive).unwrap();
        assert_eq!(none.queue_timeout, None);
    }

    #[test]
    fn what_is_not_a_whole_number_is_refused_by_name() {
        for name in ["priority", "timeout"] {
            for value in [
                ParameterValue::Int(-1),
                ParameterValue::Double(1.5),
                ParameterValue::Bool(true),
                ParameterValue::String("1".into()),
            ] {
                let fault = of(&[(name, value)], ServiceClass::Interactive).unwrap_err();
                assert!(fault.message.contains(&format!("'{name}'")), "{}", fault.message);
            }
        }
    }
}
