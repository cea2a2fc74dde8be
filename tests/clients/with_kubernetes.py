"""The official Python client. Run with KUBECONFIG and NAMESPACE set: python -m unittest with_kubernetes"""

import json
import os
import threading
import unittest
import uuid
from datetime import datetime, timezone

from kubernetes import client, config, utils, watch
from kubernetes.client.rest import ApiException
from kubernetes.dynamic import DynamicClient
from kubernetes.stream import portforward, stream

NAMESPACE = os.environ["NAMESPACE"]
IMAGE = "localhost/busybox:1"


def setUpModule():
    config.load_kube_config()


def name(prefix):
    return f"{prefix}-{uuid.uuid4().hex[:6]}"


def pod(called, command=("sleep", "3600"), labels=None):
    return client.V1Pod(
        metadata=client.V1ObjectMeta(name=called, labels=labels or {}),
        spec=client.V1PodSpec(
            termination_grace_period_seconds=1,
            containers=[client.V1Container(name="main", image=IMAGE, command=list(command))],
        ),
    )


def deployment(called, replicas=0):
    template = client.V1PodTemplateSpec(
        metadata=client.V1ObjectMeta(labels={"app": called}),
        spec=client.V1PodSpec(containers=[client.V1Container(name="main", image=IMAGE)]),
    )
    return client.V1Deployment(
        metadata=client.V1ObjectMeta(name=called),
        spec=client.V1DeploymentSpec(
            replicas=replicas,
            selector=client.V1LabelSelector(match_labels={"app": called}),
            template=template,
        ),
    )


class Objects(unittest.TestCase):
    def setUp(self):
        self.core = client.CoreV1Api()
        self.apps = client.AppsV1Api()

    def test_version(self):
        version = client.VersionApi().get_code()
        self.assertEqual(version.major, "1")
        self.assertTrue(version.git_version.startswith("v1."))

    def test_discovery(self):
        groups = {group.name for group in client.ApisApi().get_api_versions().groups}
        self.assertLessEqual({"apps", "batch", "autoscaling", "policy", "networking.k8s.io"}, groups)
        resources = {resource.name for resource in self.core.get_api_resources().resources}
        self.assertLessEqual({"pods", "pods/log", "pods/exec", "pods/eviction", "services"}, resources)

    def test_create_read_replace_delete(self):
        called = name("config")
        made = self.core.create_namespaced_config_map(
            NAMESPACE, client.V1ConfigMap(metadata=client.V1ObjectMeta(name=called), data={"a": "1"})
        )
        self.assertEqual(made.data, {"a": "1"})
        made.data["b"] = "2"
        changed = self.core.replace_namespaced_config_map(called, NAMESPACE, made)
        self.assertNotEqual(changed.metadata.resource_version, made.metadata.resource_version)
        with self.assertRaises(ApiException) as stale:
            self.core.replace_namespaced_config_map(called, NAMESPACE, made)
        self.assertEqual(stale.exception.status, 409)
        self.assertIn("the object has been modified", stale.exception.body)
        answer = self.core.delete_namespaced_config_map(called, NAMESPACE, _preload_content=False)
        status = json.loads(answer.data)
        self.assertEqual((status["status"], status["details"]["name"]), ("Success", called))
        with self.assertRaises(ApiException) as gone:
            self.core.read_namespaced_config_map(called, NAMESPACE)
        self.assertEqual(gone.exception.status, 404)

    def test_deleted_pods_are_answered_with_the_pod(self):
        called = name("pod")
        self.core.create_namespaced_pod(NAMESPACE, pod(called))
        deleted = self.core.delete_namespaced_pod(called, NAMESPACE)
        self.assertEqual(deleted.metadata.name, called)

    def test_generate_name(self):
        body = client.V1ConfigMap(metadata=client.V1ObjectMeta(generate_name="made-"))
        made = self.core.create_namespaced_config_map(NAMESPACE, body)
        self.assertRegex(made.metadata.name, "^made-[a-z0-9]{5}$")

    def test_pages(self):
        label = name("page")
        for index in range(7):
            metadata = client.V1ObjectMeta(name=f"{label}-{index}", labels={"page": label})
            self.core.create_namespaced_config_map(NAMESPACE, client.V1ConfigMap(metadata=metadata))
        seen, token = [], None
        while True:
            page = self.core.list_namespaced_config_map(
                NAMESPACE, label_selector=f"page={label}", limit=3, _continue=token
            )
            self.assertLessEqual(len(page.items), 3)
            seen += [item.metadata.name for item in page.items]
            token = page.metadata._continue
            if not token:
                break
        self.assertEqual(seen, [f"{label}-{index}" for index in range(7)])

    def test_set_based_selectors(self):
        mark = name("mark")
        for tier in ["web", "db", "cache"]:
            metadata = client.V1ObjectMeta(name=f"{mark}-{tier}", labels={"mark": mark, "tier": tier})
            self.core.create_namespaced_config_map(NAMESPACE, client.V1ConfigMap(metadata=metadata))

        def tiers(selector):
            found = self.core.list_namespaced_config_map(NAMESPACE, label_selector=f"mark={mark},{selector}")
            return sorted(item.metadata.labels["tier"] for item in found.items)

        self.assertEqual(tiers("tier in (web, db)"), ["db", "web"])
        self.assertEqual(tiers("tier notin (web)"), ["cache", "db"])
        self.assertEqual(tiers("!colour"), ["cache", "db", "web"])
        self.assertEqual(tiers("tier!=db"), ["cache", "web"])

    def test_strategic_merge_patch_is_the_default(self):
        called = name("deploy")
        self.apps.create_namespaced_deployment(NAMESPACE, deployment(called))
        containers = [{"name": "side", "image": IMAGE}]
        patched = self.apps.patch_namespaced_deployment(
            called, NAMESPACE, {"spec": {"template": {"spec": {"containers": containers}}}}
        )
        self.assertEqual(sorted(c.name for c in patched.spec.template.spec.containers), ["main", "side"])

    def test_json_patch(self):
        called = name("json")
        metadata = client.V1ObjectMeta(name=called)
        self.core.create_namespaced_config_map(NAMESPACE, client.V1ConfigMap(metadata=metadata, data={"a": "1"}))
        patch = [{"op": "test", "path": "/data/a", "value": "1"}, {"op": "add", "path": "/data/b", "value": "2"}]
        patched = self.core.patch_namespaced_config_map(called, NAMESPACE, patch)
        self.assertEqual(patched.data, {"a": "1", "b": "2"})

    def test_scale(self):
        called = name("scale")
        self.apps.create_namespaced_deployment(NAMESPACE, deployment(called))
        scale = self.apps.read_namespaced_deployment_scale(called, NAMESPACE)
        self.assertEqual((scale.kind, scale.spec.replicas or 0), ("Scale", 0))
        scaled = self.apps.patch_namespaced_deployment_scale(called, NAMESPACE, {"spec": {"replicas": 3}})
        self.assertEqual(scaled.spec.replicas, 3)
        scaled.spec.replicas = 0
        self.apps.replace_namespaced_deployment_scale(called, NAMESPACE, scaled)
        self.assertEqual(self.apps.read_namespaced_deployment(called, NAMESPACE).spec.replicas, 0)

    def test_status(self):
        called = name("status")
        made = self.apps.create_namespaced_deployment(NAMESPACE, deployment(called))
        made.status = client.V1DeploymentStatus(observed_generation=made.metadata.generation, replicas=0)
        made.spec.replicas = 5
        changed = self.apps.replace_namespaced_deployment_status(called, NAMESPACE, made)
        self.assertEqual(changed.status.observed_generation, 1)
        self.assertEqual((changed.spec.replicas, changed.metadata.generation), (0, 1))

    def test_dry_run(self):
        called = name("dry")
        body = client.V1ConfigMap(metadata=client.V1ObjectMeta(name=called))
        made = self.core.create_namespaced_config_map(NAMESPACE, body, dry_run="All")
        self.assertTrue(made.metadata.uid)
        with self.assertRaises(ApiException) as missing:
            self.core.read_namespaced_config_map(called, NAMESPACE)
        self.assertEqual(missing.exception.status, 404)

    def test_invalid_objects_name_their_fields(self):
        with self.assertRaises(ApiException) as invalid:
            self.core.create_namespaced_pod(NAMESPACE, pod("Bad_Name"))
        self.assertEqual(invalid.exception.status, 422)
        self.assertIn('"field":"metadata.name"', invalid.exception.body)

    def test_watch_from_nothing_to_a_change(self):
        called = name("watched")
        metadata = client.V1ObjectMeta(name=called)
        self.core.create_namespaced_config_map(NAMESPACE, client.V1ConfigMap(metadata=metadata))
        events = watch.Watch()
        seen = []
        for event in events.stream(
            self.core.list_namespaced_config_map,
            NAMESPACE,
            field_selector=f"metadata.name={called}",
            timeout_seconds=60,
        ):
            seen.append(event["type"])
            if event["type"] == "ADDED":
                self.core.patch_namespaced_config_map(called, NAMESPACE, {"data": {"a": "1"}})
            elif event["type"] == "MODIFIED":
                self.core.delete_namespaced_config_map(called, NAMESPACE)
            else:
                events.stop()
        self.assertEqual(seen, ["ADDED", "MODIFIED", "DELETED"])

    def test_deletecollection(self):
        label = name("many")
        for index in range(3):
            metadata = client.V1ObjectMeta(name=f"{label}-{index}", labels={"many": label})
            self.core.create_namespaced_config_map(NAMESPACE, client.V1ConfigMap(metadata=metadata))
        self.core.delete_collection_namespaced_config_map(NAMESPACE, label_selector=f"many={label}")
        left = self.core.list_namespaced_config_map(NAMESPACE, label_selector=f"many={label}")
        self.assertEqual(left.items, [])

    def test_autoscalers_in_both_versions(self):
        called = name("hpa")
        target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "x"}
        v1 = client.AutoscalingV1Api()
        body = {
            "metadata": {"name": called},
            "spec": {"scaleTargetRef": target, "maxReplicas": 5, "targetCPUUtilizationPercentage": 70},
        }
        v1.create_namespaced_horizontal_pod_autoscaler(NAMESPACE, body)
        v2 = client.AutoscalingV2Api().read_namespaced_horizontal_pod_autoscaler(called, NAMESPACE)
        self.assertEqual(v2.spec.metrics[0].resource.target.average_utilization, 70)
        again = v1.read_namespaced_horizontal_pod_autoscaler(called, NAMESPACE)
        self.assertEqual(again.spec.target_cpu_utilization_percentage, 70)

    def test_events_in_both_versions(self):
        called = name("event")
        body = client.CoreV1Event(
            metadata=client.V1ObjectMeta(name=called),
            involved_object=client.V1ObjectReference(kind="Pod", name="x", namespace=NAMESPACE),
            reason="Tested",
            message="a note",
            type="Normal",
            event_time=datetime.now(timezone.utc),
            action="Test",
            reporting_component="tests.example.dev/python",
            reporting_instance="one",
        )
        self.core.create_namespaced_event(NAMESPACE, body)
        new = client.EventsV1Api().read_namespaced_event(called, NAMESPACE)
        self.assertEqual((new.note, new.regarding.name), ("a note", "x"))

    def test_access_reviews(self):
        review = client.V1SelfSubjectAccessReview(
            spec=client.V1SelfSubjectAccessReviewSpec(
                resource_attributes=client.V1ResourceAttributes(namespace=NAMESPACE, verb="create", resource="pods")
            )
        )
        answer = client.AuthorizationV1Api().create_self_subject_access_review(review)
        self.assertTrue(answer.status.allowed)
        who = client.AuthenticationV1Api().create_self_subject_review(client.V1SelfSubjectReview())
        self.assertEqual(who.status.user_info.username, "kubernetes-admin")
        self.assertIn("system:masters", who.status.user_info.groups)

    def test_server_side_apply(self):
        called = name("applied")
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": called}, "data": {"a": "1"}}
        dynamic = DynamicClient(client.ApiClient())
        configs = dynamic.resources.get(api_version="v1", kind="ConfigMap")
        made = dynamic.server_side_apply(configs, body=body, namespace=NAMESPACE, field_manager="one")
        self.assertEqual(made.metadata.managedFields[0].operation, "Apply")
        body["data"]["a"] = "2"
        with self.assertRaises(Exception) as conflict:
            dynamic.server_side_apply(configs, body=body, namespace=NAMESPACE, field_manager="two")
        self.assertEqual(conflict.exception.status, 409)
        self.assertIn('conflict with \\"one\\"', conflict.exception.body)
        taken = dynamic.server_side_apply(
            configs, body=body, namespace=NAMESPACE, field_manager="two", force_conflicts=True
        )
        self.assertEqual(taken.data.a, "2")

    def test_dynamic_client_and_utils(self):
        called = name("dynamic")
        manifest = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": called, "namespace": NAMESPACE}}
        manifest["spec"] = {"ports": [{"port": 80}], "selector": {"app": "x"}}
        utils.create_from_dict(client.ApiClient(), manifest)
        services = DynamicClient(client.ApiClient()).resources.get(api_version="v1", kind="Service")
        self.assertEqual(services.get(name=called, namespace=NAMESPACE).spec.ports[0].port, 80)
        services.delete(name=called, namespace=NAMESPACE)

    def test_custom_resources(self):
        plural = "probes" + uuid.uuid4().hex[:6]
        group = "tests.example.dev"
        schema = {
            "type": "object",
            "properties": {
                "spec": {
                    "type": "object",
                    "properties": {"size": {"type": "integer", "minimum": 1}, "colour": {"type": "string", "default": "red"}},
                }
            },
        }
        body = {
            "metadata": {"name": f"{plural}.{group}"},
            "spec": {
                "group": group,
                "scope": "Namespaced",
                "names": {"plural": plural, "kind": plural.capitalize()},
                "versions": [
                    {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
                ],
            },
        }
        definitions = client.ApiextensionsV1Api()
        definitions.create_custom_resource_definition(body)
        try:
            custom = client.CustomObjectsApi()
            made = custom.create_namespaced_custom_object(
                group,
                "v1",
                NAMESPACE,
                plural,
                {"apiVersion": f"{group}/v1", "kind": plural.capitalize(), "metadata": {"name": "one"}, "spec": {"size": 3}},
            )
            self.assertEqual(made["spec"], {"size": 3, "colour": "red"})
            with self.assertRaises(ApiException) as invalid:
                custom.patch_namespaced_custom_object(group, "v1", NAMESPACE, plural, "one", {"spec": {"size": 0}})
            self.assertEqual(invalid.exception.status, 422)
            self.assertIn("spec.size", invalid.exception.body)
        finally:
            definitions.delete_custom_resource_definition(f"{plural}.{group}")


class Streams(unittest.TestCase):
    """What needs a pod that runs."""

    @classmethod
    def setUpClass(cls):
        cls.core = client.CoreV1Api()
        cls.pod = name("streams")
        serve = "echo started; echo hello > /tmp/index.html; httpd -f -p 8080 -h /tmp"
        cls.core.create_namespaced_pod(NAMESPACE, pod(cls.pod, ["sh", "-c", serve]))
        events = watch.Watch()
        for event in events.stream(
            cls.core.list_namespaced_pod, NAMESPACE, field_selector=f"metadata.name={cls.pod}", timeout_seconds=90
        ):
            conditions = {c.type: c.status for c in event["object"].status.conditions or []}
            if conditions.get("Ready") == "True":
                events.stop()

    @classmethod
    def tearDownClass(cls):
        cls.core.delete_namespaced_pod(cls.pod, NAMESPACE, grace_period_seconds=0)

    def test_logs(self):
        lines = watch.Watch().stream(self.core.read_namespaced_pod_log, self.pod, NAMESPACE)
        self.assertEqual(next(iter(lines)), "started")
        stamped = self.core.read_namespaced_pod_log(self.pod, NAMESPACE, timestamps=True, tail_lines=1)
        self.assertRegex(stamped, r"^\d{4}-\d\d-\d\dT.*Z started\n$")

    def test_exec(self):
        command = ["sh", "-c", "echo out; echo err >&2; exit 3"]
        session = stream(
            self.core.connect_get_namespaced_pod_exec,
            self.pod,
            NAMESPACE,
            command=command,
            stdout=True,
            stderr=True,
            _preload_content=False,
        )
        session.run_forever(timeout=60)
        self.assertEqual((session.read_stdout(), session.read_stderr()), ("out\n", "err\n"))
        self.assertEqual(session.returncode, 3)

    def test_exec_standard_input(self):
        session = stream(
            self.core.connect_get_namespaced_pod_exec,
            self.pod,
            NAMESPACE,
            command=["cat"],
            stdin=True,
            stdout=True,
            _preload_content=False,
        )
        session.write_stdin("a line\n")
        self.assertEqual(session.readline_stdout(timeout=60), "a line")
        session.close()

    def test_port_forward(self):
        forwarded = portforward(self.core.connect_get_namespaced_pod_portforward, self.pod, NAMESPACE, ports="8080")
        socket = forwarded.socket(8080)
        socket.settimeout(60)
        socket.sendall(b"GET /index.html HTTP/1.0\r\n\r\n")
        answer = b""
        while piece := socket.recv(4096):
            answer += piece
        socket.close()
        self.assertTrue(answer.startswith(b"HTTP/1.1 200"), answer)
        self.assertTrue(answer.endswith(b"hello\n"), answer)
        self.assertIsNone(forwarded.error(8080))

    def test_eviction(self):
        called = name("evicted")
        self.core.create_namespaced_pod(NAMESPACE, pod(called))
        body = client.V1Eviction(metadata=client.V1ObjectMeta(name=called, namespace=NAMESPACE))
        self.core.create_namespaced_pod_eviction(called, NAMESPACE, body)
        gone = threading.Event()
        events = watch.Watch()
        for event in events.stream(
            self.core.list_namespaced_pod, NAMESPACE, field_selector=f"metadata.name={called}", timeout_seconds=60
        ):
            if event["type"] == "DELETED":
                gone.set()
                events.stop()
        # A watch that began after the end has nothing to tell.
        if not gone.is_set():
            with self.assertRaises(ApiException):
                self.core.read_namespaced_pod(called, NAMESPACE)


if __name__ == "__main__":
    unittest.main()
