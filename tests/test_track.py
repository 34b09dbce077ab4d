import json
import subprocess
import sys
import warnings

import pytest

from fer_lib import track, train
from fer_lib.track import _choose_mode, mirror_run
from fer_lib.train import train_run

pytestmark = pytest.mark.slow


def test_an_offline_run_holds_the_numbers_of_the_record(brief, small, own_folders):
    """Read back with W&B's own tool."""
    run = train_run(brief, small, seed=0, wandb_mode="offline")
    (folder,) = (own_folders / "reports" / "wandb").glob("offline-run-*")
    tool = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)]
    lines = subprocess.run(tool, capture_output=True, text=True, check=True).stdout.splitlines()
    records = [json.loads(line) for line in lines]
    (started,) = [line["run"] for line in records if line["type"] == "run"]
    assert started["run_group"] == "A/A1" and started["job_type"] == "train"
    assert started["config"]["update"]["learning_rate"] == brief.learning_rate
    assert started["config"]["update"]["seed"] == 0
    logged = "\n".join(lines)
    for key in ("train/loss", "train/accuracy", "val/loss", "val/accuracy", "test/accuracy", "confusion_matrix"):
        assert key in logged, key
    summary = subprocess.run([*tool, "--summary"], capture_output=True, text=True, check=True).stdout
    values = json.loads(summary)["summary"]
    assert values["test/accuracy"] == pytest.approx(run.results["test_accuracy"])
    assert values["val/accuracy"] == pytest.approx(run.history["validation_accuracy"].iloc[-1], abs=1e-5)


def test_report_bs_runs_carry_its_own_names_too(own_folders):
    command = "-m fer_lib.train b1_two_layer --data drawn-few --epochs 1 --wandb offline"  # W&B's folder is a process's
    subprocess.run([sys.executable, *command.split()], check=True, capture_output=True)
    (folder,) = (own_folders / "reports" / "wandb").glob("offline-run-*")
    tool = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", "--summary", str(folder)]
    values = json.loads(subprocess.run(tool, capture_output=True, text=True, check=True).stdout)["summary"]
    assert values["Test_accuracy"] == values["val/accuracy"] and values["train_accuracy"] == values["train/accuracy"]


def test_a_failure_of_wandb_never_ends_a_training(brief, small, monkeypatch):
    import wandb

    monkeypatch.setattr(wandb, "init", lambda **_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.warns(UserWarning, match="W&B is not available .disk full.; the run goes on"):
        run = train_run(brief, small, seed=0, wandb_mode="offline")
    assert run.results["epochs"] == 2


def test_a_server_that_does_not_answer_is_waited_for_shortly_and_once(brief, small, tmp_path, monkeypatch):
    import wandb

    asked = []

    def refuse(**options):
        asked.append(options["settings"].init_timeout)
        raise TimeoutError("no answer")

    monkeypatch.setattr(wandb, "init", refuse)
    monkeypatch.setattr(track, "_unreachable", [])
    with pytest.warns(UserWarning, match="W&B is not available .no answer."):
        for seed in (0, 1):
            with mirror_run(brief, small, seed, tmp_path, "online") as mirror:
                assert mirror.run is None
    assert len(asked) == 1 and asked[0] <= 20


def test_an_interrupted_run_is_one_run_of_wandbs_and_a_trained_again_one_another(brief, small, monkeypatch):
    import wandb

    begun = []
    monkeypatch.setattr(wandb, "init", lambda **options: begun.append(options["id"]))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train, "summarise_run", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        train_run(brief, small, seed=0, wandb_mode="offline")
    train_run(brief, small, seed=0, wandb_mode="offline")
    train_run(brief, small, seed=0, wandb_mode="offline", retrain=True)
    assert begun[0] == begun[1] != begun[2]


def test_a_failure_in_the_middle_is_told_once(brief, small, tmp_path):
    class Broken:
        def log(self, *args, **kwargs):
            raise OSError("connection lost")

    with mirror_run(brief, small, 0, tmp_path, "disabled") as mirror:
        mirror.run = Broken()
        with pytest.warns(UserWarning, match="connection lost"):
            mirror.log_epoch({"epoch": 1})
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            mirror.log_epoch({"epoch": 2})


def test_auto_is_online_for_a_user_who_is_logged_in_and_offline_for_others(tmp_path, monkeypatch):
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert _choose_mode() == "offline"
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password key\n")
    assert _choose_mode() == "online"
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert _choose_mode() == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "key")
    assert _choose_mode() == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert _choose_mode() == "disabled"
