"""The table of genes, downloaded from a server on this machine."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import scfound_atac as sfa
from scfound_atac.datasets import gene_table

BED = b"""#chr\tstart\tend\tname\tscore\tstrand\tEnsembl_ID\tgene_type
chr1\t100\t200\tA\t0\t-\tENSG1\tlincRNA
chrX\t300\t400\tB\t0\t+\tENSG2\tprotein_coding
"""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """Serves `body` as the table of genes; counts requests."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.n_requests += 1
            self.send_response(200)
            self.send_header("Content-Length", str(len(server.body)))
            self.end_headers()
            self.wfile.write(server.body)

        def log_message(self, *_args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        body, n_requests = BED, 0

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    monkeypatch.setenv("SCFOUND_ATAC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(gene_table, "_URL", f"http://127.0.0.1:{server.server_port}/genes.bed")
    monkeypatch.setattr(gene_table, "_SHA256", hashlib.sha256(BED).hexdigest())
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_downloaded_once_and_found_again(server: Any) -> None:
    with pytest.raises(FileNotFoundError, match=r"sfa\.datasets\.genes\(\) downloads it once.*as genes="):
        gene_table.given_or_downloaded(None)
    assert server.n_requests == 0  # nothing is downloaded unless asked
    assert not gene_table.genes_path().parent.exists()

    genes = sfa.datasets.genes(progress=False)
    assert list(genes) == ["chrom", "start", "end", "name", "strand", "id", "type"]
    assert genes.iloc[0].tolist() == ["chr1", 100, 200, "A", "-", "ENSG1", "lincRNA"]
    assert sfa.datasets.genes(progress=False).equals(genes)
    assert server.n_requests == 1
    assert sfa.genome.read_genes(gene_table.given_or_downloaded(None)).equals(genes)
    assert sfa.genome.read_genes(genes).equals(genes)
    assert gene_table.given_or_downloaded(genes) is genes


def test_own_folder(server: Any, tmp_path: Path) -> None:
    sfa.datasets.genes(cache_dir=tmp_path / "mine", progress=False)
    assert (tmp_path / "mine" / "genes" / "genes_grch38.bed").read_bytes() == BED
    with pytest.raises(FileNotFoundError):
        gene_table.given_or_downloaded(None)


def test_changed_file_is_refused(server: Any, tmp_path: Path) -> None:
    server.body = BED + b"chr2\t1\t2\tC\t0\t+\tENSG3\tTEC\n"
    with pytest.raises(ValueError, match=r"a wrong checksum.*genes_grch38\.bed.*was removed.*do not use it"):
        sfa.datasets.genes(progress=False)
    assert list((tmp_path / "cache" / "genes").iterdir()) == []


def test_offline(server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gene_table, "_URL", "http://127.0.0.1:9/genes.bed")  # nobody listens there
    with pytest.raises(ConnectionError, match=r"copy it here by hand with sha256 .*genes_grch38\.bed"):
        sfa.datasets.genes(progress=False)
    (tmp_path / "cache" / "genes" / "genes_grch38.bed").write_bytes(BED)
    assert len(sfa.datasets.genes(progress=False)) == 2


def test_pinned_file_is_the_one_documented(data_dir: Path) -> None:
    content = (data_dir / "genome" / "genes_grch38.bed").read_bytes()
    assert hashlib.sha256(content).hexdigest() == gene_table._SHA256
