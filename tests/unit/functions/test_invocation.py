import pytest
from botocore.config import Config


@pytest.mark.parametrize(("service", "seconds"), [("s3", 15), ("sagemaker-runtime", 65)])
def test_a_service_that_stays_silent_is_asked_again_but_a_model_may_take_a_minute(load, service, seconds):
    config = load("verify_endpoint", "invocation").client(service).meta.config
    assert (config.connect_timeout, config.read_timeout) == (3, seconds)


def test_what_a_function_says_of_its_client_goes_before(load):
    given = Config(read_timeout=5, max_pool_connections=32)
    config = load("sweep_inbox", "invocation").client("s3", given).meta.config
    assert (config.connect_timeout, config.read_timeout, config.max_pool_connections) == (3, 5, 32)
