"""Settings of backup, monitoring and vision: what is taken, and what is refused with which words."""

import pytest
from pydantic import ValidationError

from appliance.settings.model import Settings


@pytest.mark.parametrize(
    "repository",
    ["/srv/backup", "sftp://rouse@nas.lan/backup", "sftp://nas:2222//srv/backup", "rest:https://nas.lan:8000/rouse/"],
)
def test_repositories(repository: str) -> None:
    assert Settings.model_validate({"backup": {"repository": repository}}).backup.repository == repository


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ({"backup": {"repository": "backup"}}, "expected a folder such as"),
        ({"backup": {"repository": "/srv/../etc"}}, "expected a folder such as"),
        ({"backup": {"repository": "sftp://-oProxyCommand=x/backup"}}, "expected a folder such as"),
        ({"backup": {"repository": "sftp://a:secret@nas.lan/backup"}}, "expected a folder such as"),
        ({"backup": {"repository": "rest:https://user:secret@nas.lan/"}}, "expected a folder such as"),
        ({"backup": {"repository": "s3:somewhere"}}, "expected a folder such as"),
        ({"backup": {"at": "24:00"}}, "expected a time of day"),
        ({"backup": {"rest_username": "me"}}, "go together"),
        ({"backup": {"keep_daily": 0, "keep_weekly": 0, "keep_monthly": 0}}, "nothing would be kept"),
        ({"backup": {"include": ["../etc"]}}, "expected an absolute path"),
        ({"monitoring": {"textfiles": "/var/lib/x y"}}, "expected an absolute path"),
        ({"monitoring": {"grafana_repository": "https://x/\nTrusted: yes"}}, "expected https://host"),
        ({"vision": {"image": "frigate; rm"}}, "expected an image"),
        ({"vision": {"media": "/media/a\nExec=x"}}, "expected an absolute path"),
        ({"vision": {"mqtt_url": "mqtt://a:b@hub"}}, "expected mqtt://host"),
        ({"vision": {"cameras": {"a-b": {"url": "rtsp://x/"}, "a_b": {"url": "rtsp://x/"}}}}, "differ by - and _ only"),
        ({"vision": {"cameras": {"a": {"url": "rtsp://u:p@x/"}}}}, "without user and password"),
        ({"vision": {"cameras": {"a": {"url": "rtsp://x/{FRIGATE_MQTT_PASSWORD}"}}}}, "without user and password"),
        ({"vision": {"cameras": {"a": {"url": "http://x/"}}}}, "expected rtsp://host"),
        ({"vision": {"cameras": {"a": {"url": "rtsp://x/", "username": "me"}}}}, "go together"),
        ({"vision": {"cameras": {"a": {"url": "rtsp://x/", "objects": ["a: b"]}}}}, "should match pattern"),
    ],
)
def test_what_is_refused(section: dict[str, object], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem) as caught:
        Settings.model_validate(section)
    assert "secret" not in str(caught.value.errors(include_input=False))
