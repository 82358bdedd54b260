"""Which of Django's tests are not run, and why. Each says of another backend what is not so, or not possible, here."""

LEFT_OUT = {
    # A custom backend is made from DatabaseBackend here, and these two say what one lacks that is made from nothing.
    "test_custom_backend.CustomBackendTestCase.test_backend_does_not_support_priority": (
        "a backend that has no priorities refuses them; DatabaseBackend has them"
    ),
    "test_custom_backend.CustomBackendTestCase.test_no_enqueue": (
        "a backend without enqueue() can't be made; DatabaseBackend has one to inherit"
    ),
    # Each of these changes an object in DummyBackend's list, to see refresh() read it from there.
    "test_dummy_backend.DummyBackendTestCase.test_refresh_result": "about the list in memory of DummyBackend",
    "test_dummy_backend.DummyBackendTestCase.test_refresh_result_async": "about the list in memory of DummyBackend",
    # ImmediateBackend keeps nothing, since it runs a task in the caller's process.
    "test_immediate_backend.ImmediateBackendTestCase.test_cannot_get_result": "DatabaseBackend keeps results",
    "test_immediate_backend.ImmediateBackendTestCase.test_cannot_refresh_result": "DatabaseBackend keeps results",
    "test_immediate_backend.ImmediateBackendTestCase.test_cannot_pass_run_after": "DatabaseBackend can defer a task",
}
