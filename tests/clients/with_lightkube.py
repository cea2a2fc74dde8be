"""lightkube. Run with KUBECONFIG and NAMESPACE set: python -m unittest with_lightkube"""

import os
import time
import unittest
import uuid

from lightkube import ApiError, Client
from lightkube.generic_resource import create_namespaced_resource
from lightkube.models.core_v1 import Container, PodSpec
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import ConfigMap, Node, Pod
from lightkube.types import CascadeType, PatchType

NAMESPACE = os.environ["NAMESPACE"]
IMAGE = "localhost/busybox:1"


def name(prefix):
    return f"{prefix}-{uuid.uuid4().hex[:6]}"


def config(called, labels=None, **data):
    return ConfigMap(metadata=ObjectMeta(name=called, namespace=NAMESPACE, labels=labels), data=data)


class Lightkube(unittest.TestCase):
    def setUp(self):
        self.client = Client(namespace=NAMESPACE, field_manager="lightkube-test")

    def test_create_get_replace_delete(self):
        called = name("config")
        made = self.client.create(config(called, a="1"))
        made.data["b"] = "2"
        self.client.replace(made)
        self.assertEqual(self.client.get(ConfigMap, called).data, {"a": "1", "b": "2"})
        with self.assertRaises(ApiError) as stale:
            self.client.replace(made)
        self.assertEqual((stale.exception.status.code, stale.exception.status.reason), (409, "Conflict"))
        self.client.delete(ConfigMap, called, cascade=CascadeType.FOREGROUND)
        # In the foreground the object goes last, which is not before the answer.
        deadline = time.monotonic() + 60
        while list(self.client.list(ConfigMap, fields={"metadata.name": called})):
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.02)
        with self.assertRaises(ApiError) as missing:
            self.client.get(ConfigMap, called)
        self.assertEqual(missing.exception.status.details.name, called)

    def test_list_by_labels_in_chunks(self):
        mark = name("mark")
        for index in range(5):
            self.client.create(config(f"{mark}-{index}", labels={"mark": mark}))
        found = list(self.client.list(ConfigMap, labels={"mark": mark}, chunk_size=2))
        self.assertEqual([o.metadata.name for o in found], [f"{mark}-{index}" for index in range(5)])

    def test_patches(self):
        called = name("patched")
        self.client.create(config(called, a="1"))
        self.client.patch(ConfigMap, called, {"data": {"b": "2"}})
        self.client.patch(ConfigMap, called, {"data": {"c": "3"}}, patch_type=PatchType.MERGE)
        patch = [{"op": "remove", "path": "/data/a"}]
        self.client.patch(ConfigMap, called, patch, patch_type=PatchType.JSON)
        self.assertEqual(self.client.get(ConfigMap, called).data, {"b": "2", "c": "3"})

    def test_apply_and_its_conflicts(self):
        called = name("applied")
        made = self.client.apply(config(called, a="1"))
        self.assertEqual(made.metadata.managedFields[0].manager, "lightkube-test")
        other = Client(namespace=NAMESPACE, field_manager="other")
        with self.assertRaises(ApiError) as conflict:
            other.apply(config(called, a="2"))
        self.assertEqual(conflict.exception.status.code, 409)
        self.assertEqual(other.apply(config(called, a="2"), force=True).data, {"a": "2"})
        # Whether an empty map is shown is up to the server.
        self.assertFalse(other.apply(config(called)).data)

    def test_watch(self):
        called = name("watched")
        self.client.create(config(called))
        seen = []
        for kind, _ in self.client.watch(ConfigMap, fields={"metadata.name": called}, server_timeout=60):
            seen.append(kind)
            if kind == "ADDED":
                self.client.patch(ConfigMap, called, {"data": {"a": "1"}})
            elif kind == "MODIFIED":
                self.client.delete(ConfigMap, called)
            else:
                break
        self.assertEqual(seen, ["ADDED", "MODIFIED", "DELETED"])

    def test_scale_and_status(self):
        called = name("deploy")
        template = {"metadata": {"labels": {"app": called}}, "spec": {"containers": [{"name": "main", "image": IMAGE}]}}
        made = Deployment.from_dict(
            {
                "metadata": {"name": called, "namespace": NAMESPACE},
                "spec": {"replicas": 0, "selector": {"matchLabels": {"app": called}}, "template": template},
            }
        )
        self.client.create(made)
        scale = self.client.get(Deployment.Scale, called)
        scale.spec.replicas = 2
        self.client.replace(scale, called)
        self.assertEqual(self.client.get(Deployment, called).spec.replicas, 2)
        self.client.patch(Deployment.Status, called, {"status": {"observedGeneration": 2}})
        self.assertEqual(self.client.get(Deployment, called).status.observedGeneration, 2)
        self.client.delete(Deployment, called)

    def test_wait_and_log(self):
        called = name("pod")
        container = Container(name="main", image=IMAGE, command=["sh", "-c", "echo one; echo two; sleep 3600"])
        spec = PodSpec(containers=[container], terminationGracePeriodSeconds=1)
        self.client.create(Pod(metadata=ObjectMeta(name=called, namespace=NAMESPACE), spec=spec))
        ready = self.client.wait(Pod, called, for_conditions=["Ready"])
        self.assertEqual(ready.status.phase, "Running")
        lines = []
        for line in self.client.log(called, follow=True):
            lines.append(line)
            if len(lines) == 2:
                break
        self.assertEqual(lines, ["one\n", "two\n"])
        self.client.delete(Pod, called)

    def test_cluster_scoped_kinds(self):
        self.assertEqual([node.metadata.name for node in self.client.list(Node)], ["n1"])

    def test_custom_resources(self):
        kind = "Lk" + uuid.uuid4().hex[:6]
        plural, group = kind.lower() + "s", "lightkube.example.dev"
        custom = create_namespaced_resource(group, "v1", kind, plural)
        from lightkube.resources.apiextensions_v1 import CustomResourceDefinition

        body = {
            "metadata": {"name": f"{plural}.{group}"},
            "spec": {
                "group": group,
                "scope": "Namespaced",
                "names": {"plural": plural, "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List"},
                "versions": [
                    {
                        "name": "v1",
                        "served": True,
                        "storage": True,
                        "schema": {
                            "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
                        },
                    }
                ],
            },
        }
        self.client.create(CustomResourceDefinition.from_dict(body))
        try:
            self.client.wait(CustomResourceDefinition, f"{plural}.{group}", for_conditions=["Established"])
            self.client.create(custom(metadata=ObjectMeta(name="one", namespace=NAMESPACE), spec={"any": [1, {"x": "y"}]}))
            self.assertEqual(self.client.get(custom, "one").spec, {"any": [1, {"x": "y"}]})
        finally:
            self.client.delete(CustomResourceDefinition, f"{plural}.{group}")


if __name__ == "__main__":
    unittest.main()
