//! What is logged and what is traced, as far as callers are told of it and may change it.

/// A change of one setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Change<T> {
    /// As it is.
    #[default]
    Keep,
    /// As it was at the start of the server; of a model, as the server has it.
    Clear,
    /// To this.
    To(T),
}

impl<T> Change<T> {
    /// Whether it changes anything.
    pub fn is_change(&self) -> bool {
        !matches!(self, Self::Keep)
    }
}

/// What is traced, of the server or of one model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceSettings {
    /// Whether anything is.
    pub on: bool,
    /// One request in so many, where the caller has not decided; 0: none of those.
    pub rate: u32,
    /// How many more are; -1: no bound.
    pub count: i64,
}

/// A change of what is traced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TraceChange {
    /// Whether anything is.
    pub on: Change<bool>,
    /// See [`TraceSettings::rate`].
    pub rate: Change<u32>,
    /// See [`TraceSettings::count`].
    pub count: Change<i64>,
}

impl TraceChange {
    /// Whether it changes anything.
    pub fn is_change(&self) -> bool {
        self.on.is_change() || self.rate.is_change() || self.count.is_change()
    }
}

/// How times are written in log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogTimes {
    /// Month and day, and the time of the day.
    Short,
    /// As ISO 8601 has them.
    #[default]
    Iso8601,
}

impl LogTimes {
    const ALL: [Self; 2] = [Self::Short, Self::Iso8601];

    /// Its name in the settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Short => "default",
            Self::Iso8601 => "ISO8601",
        }
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|times| times.as_str() == name)
    }
}

/// What is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogSettings {
    /// What is of interest to an operator.
    pub info: bool,
    /// What may need one.
    pub warning: bool,
    /// What needs one.
    pub error: bool,
    /// What only developers want: 0 nothing, 1 what each request does, above that everything.
    pub verbose_level: u32,
    /// How times are written.
    pub times: LogTimes,
}

/// A change of what is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogChange {
    /// See [`LogSettings::info`].
    pub info: Option<bool>,
    /// See [`LogSettings::warning`].
    pub warning: Option<bool>,
    /// See [`LogSettings::error`].
    pub error: Option<bool>,
    /// See [`LogSettings::verbose_level`].
    pub verbose_level: Option<u32>,
    /// See [`LogSettings::times`].
    pub times: Option<LogTimes>,
}

impl LogChange {
    /// The settings with it.
    #[must_use]
    pub fn of(self, settings: LogSettings) -> LogSettings {
        LogSettings {
            info: self.info.unwrap_or(settings.info),
            warning: self.warning.unwrap_or(settings.warning),
            error: self.error.unwrap_or(settings.error),
            verbose_level: self.verbose_level.unwrap_or(settings.verbose_level),
            times: self.times.unwrap_or(settings.times),
        }
    }

    /// Whether it changes anything.
    pub fn is_change(&self) -> bool {
        *self != Self::default()
    }
}
