//! What an instance keeps from `configure` for the calls after it.

use std::any::Any;
use std::cell::RefCell;

thread_local! {
    static SETTINGS: RefCell<Option<Box<dyn Any>>> = const { RefCell::new(None) };
}

/// Keeps the settings of this instance's guest.
pub(crate) fn keep<S: 'static>(settings: S) {
    tell_of_panics();
    SETTINGS.set(Some(Box::new(settings)));
}

/// Calls `then` with the settings. None before `configure`, which the host always calls first.
pub(crate) fn with<S: 'static, T>(then: impl FnOnce(&S) -> T) -> Option<T> {
    SETTINGS.with_borrow(|settings| Some(then(settings.as_ref()?.downcast_ref()?)))
}

/// Has the host's log say where and why this guest panics; otherwise it would only say that it trapped.
fn tell_of_panics() {
    #[cfg(target_family = "wasm")]
    std::panic::set_hook(Box::new(|panic| {
        crate::log(crate::Level::Error, &panic.to_string());
    }));
}
