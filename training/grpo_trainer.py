"""TRL's GRPOTrainer with group-wise resampling and difficulty-aware weighting (DifferAD-R1, Eq. 8-11).

The order of a step: draw G completions for each pair; draw the degenerate groups again; drop those that stay
degenerate; score; weigh each group by its difficulty; one policy step. Advantages, weights and the mean of the loss are
of the completions that are learned from, so after the resampling, and of whole groups wherever their members lie: a
group may span processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate.utils import gather
from numpy.typing import NDArray
from trl import GRPOTrainer

from training.groups import Redraw, next_redraw, weight_shares
from training.recipe import GrpoRecipe
from training.resume import LoadsWholeCheckpoints
from training.reward_functions import texts_of
from training.rewards import boxes_of, difficulty_weight, iou_reward, is_degenerate

if TYPE_CHECKING:
    from training.reward_functions import RewardSet

Draw = list[Any]
"""What GRPOTrainer._generate returns, as a list: prompt ids, completion ids, tool mask, completions, log-probabilities,
extra fields, images, tool images."""
_COMPLETION_IDS, _COMPLETIONS, _LOGPROBS = 1, 3, 4


class DifferenceGrpoTrainer(LoadsWholeCheckpoints, GRPOTrainer):  # type: ignore[misc]  # TRL's classes are Any here
    """GRPOTrainer whose groups are resampled and weighted; see the module. ``rewards`` and ``grpo``: of the recipe."""

    def __init__(self, *, rewards: RewardSet, grpo: GrpoRecipe, **arguments: Any) -> None:
        self._rewards, self._grpo = rewards, grpo
        self._inputs: list[dict[str, Any]] = []
        self._scores = torch.empty(0)
        super().__init__(reward_funcs=list(rewards.functions), **arguments)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self._inputs = inputs
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        if self.model.training:
            # The rewards were gathered from all processes; each works on its own rows from here on.
            judged = self._grouped(self._scores[:, self._rewards.judged].cpu().numpy())
            degenerate = is_degenerate(judged)
            self._drop(output, degenerate)
            self._weigh(output, judged, ~degenerate)
        return output

    def _generate(self, prompts: list[Any]) -> tuple[Any, ...]:
        draw: Draw = list(super()._generate(prompts))
        if not self.model.training:
            return tuple(draw)
        retries = self._grpo.retries if self._grpo.resample else 0
        for retry in range(retries + 1):
            degenerate = is_degenerate(self._grouped(self._judge(draw[_COMPLETIONS])))
            if retry == 0:
                self._log("groups/degenerate_before", float(degenerate.mean()))
            if retry == retries or not degenerate.any():
                break
            plan = next_redraw(degenerate, self.num_generations, self.accelerator.process_index, len(prompts))
            self._redraw(draw, prompts, plan)
        return tuple(draw)

    def _redraw(self, draw: Draw, prompts: Sequence[Any], plan: Redraw) -> None:
        logged = {name: len(values) for name, values in self._metrics["train"].items()}
        fresh = super()._generate([prompts[row] for row in plan.rows])
        for name, values in self._metrics["train"].items():
            del values[logged.get(name, 0) :]  # TRL counts every call; its figures describe the first draw
        for position, row in enumerate(plan.rows):
            if row in plan.kept:
                for field in (_COMPLETION_IDS, _COMPLETIONS, _LOGPROBS):
                    if draw[field] is not None:
                        draw[field][row] = fresh[field][position]

    def _judge(self, completions: list[Any]) -> NDArray[np.float64]:
        """The reward that decides what is degenerate, of all processes' completions."""
        columns = {name: [row[name] for row in self._inputs] for name in self._inputs[0] if name != "prompt"}
        scores = self._rewards.functions[self._rewards.judged](completions=completions, **columns)
        # float64: a difference of 1e-6 decides.
        local = torch.tensor(scores, dtype=torch.float64, device=self.accelerator.device)
        everywhere: NDArray[np.float64] = gather(local).cpu().numpy()
        return everywhere

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> torch.Tensor:
        scores: torch.Tensor = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        self._scores = scores
        if self._rewards.boxes:
            texts = texts_of(completions)
            truth = np.asarray([row["box"] for row in inputs], dtype=np.float64)
            overlap = torch.tensor(iou_reward(boxes_of(texts), truth), device=self.accelerator.device)
            self._log("iou", float(gather(overlap).mean()))
        lengths = torch.tensor([float(len(ids)) for ids in completion_ids_list], device=self.accelerator.device)
        self._log("length", float(gather(lengths).mean()))
        return scores

    def _drop(self, output: dict[str, Any], degenerate: NDArray[np.bool_]) -> None:
        """Leave groups that stayed degenerate out of the loss, its mean and the KL term (decision 7)."""
        self._log("groups/degenerate_after", float(degenerate.mean()))
        output["kept_share"] = torch.ones((), device=output["advantages"].device)
        if not self._grpo.resample or not degenerate.any():
            return
        kept = ~self._local(np.repeat(degenerate, self.num_generations), output)
        mask = output["completion_mask"]
        output["completion_mask"] = mask * torch.as_tensor(kept, device=mask.device)[:, None].to(mask.dtype)
        output["num_items_in_batch"] = gather(output["completion_mask"].sum()).sum()
        # At least one group: where all are dropped nothing is left to be shared out.
        output["kept_share"] *= max(1.0 - float(degenerate.mean()), 1.0 / degenerate.size)

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        loss: torch.Tensor = super()._compute_loss(model, inputs)
        if "kept_share" in inputs and self.loss_type in ("grpo", "dr_grpo"):
            # These are means over all completions, dropped ones too: policy and KL term get their share back.
            loss = loss / inputs["kept_share"]
        return loss

    def _weigh(self, output: dict[str, Any], judged: NDArray[np.float64], learnt: NDArray[np.bool_]) -> None:
        if not self._grpo.difficulty_weight:
            return
        weights = np.asarray(difficulty_weight(judged, self._grpo.tau))
        advantages = output["advantages"]
        mine = self._local(np.repeat(weights, self.num_generations), output)
        output["advantages"] = advantages * torch.as_tensor(mine, device=advantages.device).to(advantages.dtype)
        if learnt.any():  # of the groups that the step learns from
            self._log("weight/mean", float(weights[learnt].mean()))
            for name, share in weight_shares(weights[learnt]).items():
                self._log(f"weight/{name}", share)

    def _local(self, everywhere: NDArray[Any], output: dict[str, Any]) -> NDArray[Any]:
        count = len(output["advantages"])
        start = self.accelerator.process_index * count
        return everywhere[start : start + count]

    def _grouped(self, values: NDArray[Any]) -> NDArray[np.float64]:
        return np.asarray(values, dtype=np.float64).reshape(-1, self.num_generations)

    def _log(self, name: str, value: float) -> None:
        self._metrics["train" if self.model.training else "eval"][name].append(value)
