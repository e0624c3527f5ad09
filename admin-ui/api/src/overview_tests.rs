//! Tests of the overview: windows, rows, and what a tenant is shown.

use std::time::Duration;

use mesh_telemetry::{RequestSample, Telemetry};
use mesh_types::{FaultSource, StageTimings};

use super::*;

fn sample(telemetry: &Telemetry, target: &str, fault: Option<FaultSource>, milliseconds: u64) {
    sample_of(telemetry, "acme", target, fault, milliseconds);
}

fn sample_of(telemetry: &Telemetry, tenant: &str, target: &str, fault: Option<FaultSource>, milliseconds: u64) {
    telemetry.metrics().request_started();
    telemetry.metrics().request_finished(&RequestSample {
        tenant,
        target,
        arm: "v1",
        version: 1,
        fault,
        total: Duration::from_millis(milliseconds),
        stages: &StageTimings::default(),
        answers: None,
    });
}

struct Run {
    telemetry: Telemetry,
    window: Window,
    now: Instant,
}

impl Run {
    fn new() -> Self {
        Self {
            telemetry: Telemetry::local(),
            window: Window::default(),
            now: Instant::now(),
        }
    }

    fn tick(&mut self) -> Overview {
        self.window.tick(&self.telemetry.metrics().live(), self.now);
        self.now += Duration::from_secs(1);
        self.window.overview(scene(Vec::new()), None)
    }
}

fn scene(devices: Vec<DeviceView>) -> Scene {
    Scene {
        time: Timestamp::UNIX_EPOCH,
        uptime_seconds: 0.0,
        in_flight: 9,
        devices,
    }
}

fn held(tenant: &str, state: LoadState) -> HeldModel {
    HeldModel {
        tenant: TenantId::parse(tenant).unwrap(),
        state,
        reason: Some("left memory for 'cats'".into()),
        ..crate::fixture_tests::held()
    }
}

#[test]
fn a_tenants_overview_holds_its_own_numbers_and_models_only() {
    let mut run = Run::new();
    run.tick();
    for (tenant, times) in [("acme", 3), ("globex", 5), (OTHER, 7)] {
        for _ in 0..times {
            sample_of(
                &run.telemetry,
                tenant,
                "digits",
                None,
                if tenant == "acme" { 2 } else { 900 },
            );
        }
    }
    assert_eq!(run.tick().totals.ok, 15);
    let device = |number, models| DeviceView {
        device: mesh_types::DeviceId::cpu(number),
        draining: false,
        models,
    };
    let devices = vec![
        device(
            0,
            vec![held("globex", LoadState::Ready), held("acme", LoadState::Standby)],
        ),
        device(1, vec![held("globex", LoadState::Ready)]),
        device(2, vec![held("acme", LoadState::Failed)]),
    ];
    let of = |name: &str| {
        let tenant = TenantId::parse(name).unwrap();
        run.window
            .overview(scene(devices.clone()).of_tenant(&tenant, 1), Some(&tenant))
    };
    let acme = of("acme");
    assert_eq!(
        (acme.totals.ok, acme.rates.requests_per_second, acme.in_flight),
        (3, 3.0, 1)
    );
    assert!(acme.latency_ms.p99.unwrap() < 3.0, "{:?}", acme.latency_ms);
    assert_eq!(acme.endpoints.len(), 1);
    let told: Vec<_> = acme
        .devices
        .iter()
        .map(|one| (one.device.to_string(), &one.models))
        .collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told.iter()
            .all(|(_, models)| models.len() == 1 && models[0].tenant.as_str() == "acme")
    );
    // Whom it made room for is another's affair; why it does not load is not.
    assert_eq!((&told[0].1[0].reason, told[1].1[0].reason.is_some()), (&None, true));
    assert_eq!(of("globex").totals.ok, 5);
    let other = of(OTHER);
    assert_eq!(
        (other.totals, other.endpoints.len()),
        (Totals::default(), 0),
        "what is counted together is nobody's"
    );
}

#[test]
fn rates_and_quantiles_are_of_the_last_ten_seconds_and_totals_of_all_time() {
    let mut run = Run::new();
    run.tick();
    for _ in 0..20 {
        sample(&run.telemetry, "digits", None, 2);
    }
    sample(&run.telemetry, "digits", Some(FaultSource::TenantLimit), 1);
    sample(&run.telemetry, "digits", Some(FaultSource::Model), 1);
    let overview = run.tick();
    assert_eq!(overview.rates.requests_per_second, 22.0);
    assert_eq!(
        (overview.rates.errors_per_second, overview.rates.refused_per_second),
        (1.0, 1.0)
    );
    assert!((2.0..2.3).contains(&overview.latency_ms.p50.unwrap()));
    for _ in 2..WINDOW_TICKS {
        run.tick();
    }
    assert_eq!(run.tick().rates.requests_per_second, 2.2, "still within the window");
    let overview = run.tick();
    assert_eq!(
        (overview.rates, overview.latency_ms),
        (Rates::default(), LatencyMs::default())
    );
    assert_eq!(
        overview.totals,
        Totals {
            ok: 20,
            refused: 1,
            errors: 1
        }
    );
    assert_eq!(overview.endpoints[0].ok, 20);
}

#[test]
fn what_was_counted_before_the_first_tick_is_no_rate() {
    let mut run = Run::new();
    sample(&run.telemetry, "digits", None, 2);
    run.tick();
    assert_eq!(run.tick().rates, Rates::default());
}

#[test]
fn the_busiest_rows_come_first_up_to_the_bound() {
    let mut run = Run::new();
    run.tick();
    for number in 0..=MAX_ROWS {
        sample(&run.telemetry, &format!("m{number}"), None, 1);
    }
    sample(&run.telemetry, "m7", None, 1);
    let overview = run.tick();
    assert_eq!(overview.endpoints.len(), MAX_ROWS);
    assert_eq!(&*overview.endpoints[0].target, "m7");
    assert_eq!(overview.totals.ok, MAX_ROWS as u64 + 2);
}
