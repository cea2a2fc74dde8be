"""kr8s. Run with KUBECONFIG and NAMESPACE set: python -m unittest with_kr8s"""

import os
import unittest
import urllib.request
import uuid

import kr8s
from kr8s.objects import ConfigMap, Deployment, Pod, new_class

NAMESPACE = os.environ["NAMESPACE"]
IMAGE = "localhost/busybox:1"


def name(prefix):
    return f"{prefix}-{uuid.uuid4().hex[:6]}"


def config(called, labels=None, **data):
    metadata = {"name": called, "namespace": NAMESPACE, "labels": labels or {}}
    return ConfigMap({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})


class Kr8s(unittest.TestCase):
    def test_version_and_api_resources(self):
        self.assertEqual(kr8s.version()["major"], "1")
        names = {resource["name"] for resource in kr8s.api().api_resources()}
        self.assertLessEqual({"pods", "deployments", "customresourcedefinitions"}, names)

    def test_create_patch_label_delete(self):
        called = name("config")
        made = config(called, a="1")
        made.create()
        self.assertTrue(made.exists())
        made.patch({"data": {"b": "2"}})
        made.label(tested="yes")
        made.annotate(note="x")
        again = ConfigMap.get(called, namespace=NAMESPACE)
        self.assertEqual((dict(again.data), again.labels["tested"]), ({"a": "1", "b": "2"}, "yes"))
        made.delete()
        made.wait("delete", timeout=60)
        with self.assertRaises(kr8s.NotFoundError):
            ConfigMap.get(called, namespace=NAMESPACE, timeout=0)

    def test_list_by_selectors(self):
        mark = name("mark")
        for index in range(3):
            config(f"{mark}-{index}", labels={"mark": mark}).create()
        found = kr8s.get("configmaps", namespace=NAMESPACE, label_selector={"mark": mark})
        self.assertEqual(sorted(o.name for o in found), [f"{mark}-{index}" for index in range(3)])
        one = kr8s.get("cm", namespace=NAMESPACE, field_selector={"metadata.name": f"{mark}-1"})
        self.assertEqual([o.name for o in one], [f"{mark}-1"])

    def test_watch(self):
        called = name("watched")
        made = config(called)
        made.create()
        seen = []
        for kind, _ in kr8s.watch("configmaps", namespace=NAMESPACE, field_selector=f"metadata.name={called}"):
            seen.append(kind)
            if kind == "ADDED":
                made.patch({"data": {"a": "1"}})
            elif kind == "MODIFIED":
                made.delete()
            else:
                break
        self.assertEqual(seen, ["ADDED", "MODIFIED", "DELETED"])

    def test_scale(self):
        called = name("deploy")
        template = {"metadata": {"labels": {"app": called}}, "spec": {"containers": [{"name": "main", "image": IMAGE}]}}
        deployment = Deployment(
            {
                "metadata": {"name": called, "namespace": NAMESPACE},
                "spec": {"replicas": 0, "selector": {"matchLabels": {"app": called}}, "template": template},
            }
        )
        deployment.create()
        deployment.scale(0)
        self.assertEqual(deployment.replicas, 0)
        deployment.delete()

    def test_pod_exec_logs_and_port_forward(self):
        called = name("pod")
        serve = "echo started; echo hello > /tmp/index.html; httpd -f -p 8080 -h /tmp"
        container = {"name": "main", "image": IMAGE, "command": ["sh", "-c", serve], "ports": [{"containerPort": 8080}]}
        pod = Pod(
            {
                "metadata": {"name": called, "namespace": NAMESPACE},
                "spec": {"containers": [container], "terminationGracePeriodSeconds": 1},
            }
        )
        pod.create()
        pod.wait("condition=Ready", timeout=90)
        self.assertEqual(next(iter(pod.logs())), "started")
        done = pod.exec(["sh", "-c", "echo out; echo err >&2"])
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b"out\n", b"err\n"))
        with self.assertRaises(Exception):
            pod.exec(["false"])
        with pod.portforward(remote_port=8080, local_port="auto") as port:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/index.html", timeout=60) as page:
                self.assertEqual(page.read(), b"hello\n")
        pod.delete()

    def test_custom_resources(self):
        kind = "Kr" + uuid.uuid4().hex[:6]
        plural, group = kind.lower() + "s", "kr8s.example.dev"
        schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}}}
        definition = new_class("CustomResourceDefinition", version="apiextensions.k8s.io/v1", namespaced=False)(
            {
                "metadata": {"name": f"{plural}.{group}"},
                "spec": {
                    "group": group,
                    "scope": "Namespaced",
                    "names": {"plural": plural, "kind": kind},
                    "versions": [
                        {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
                    ],
                },
            }
        )
        definition.create()
        try:
            definition.wait("condition=Established", timeout=60)
            custom = new_class(kind, version=f"{group}/v1", namespaced=True)
            custom({"metadata": {"name": "one", "namespace": NAMESPACE}, "spec": {"size": 1}}).create()
            self.assertEqual(custom.get("one", namespace=NAMESPACE).spec.size, 1)
        finally:
            definition.delete()


if __name__ == "__main__":
    unittest.main()
