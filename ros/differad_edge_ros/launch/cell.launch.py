"""One inspection cell: the managed node on a camera's topic, configured and activated by itself.

ros2 launch differad_edge_ros cell.launch.py image:=/camera/image_raw product:=gasket-a [rviz:=true]
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode, Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

ARGUMENTS = {
    "image": ("/camera/image_raw", "the camera's topic; its compressed images are on .../compressed"),
    "product": ("", "what parts are compared with"),
    "mode": ("engine", "engine, server or rehearsal"),
    "namespace": ("", "the cell's, for more than one on a machine"),
    "autostart": ("true", "false: a lifecycle manager configures and activates the node"),
    "params": (
        PathJoinSubstitution([FindPackageShare("differad_edge_ros"), "config", "cell.yaml"]),
        "file of all other parameters",
    ),
    "fastdds": (
        PathJoinSubstitution([FindPackageShare("differad_edge_ros"), "config", "fastdds.xml"]),
        "Fast DDS profile for large images; the camera's process needs it too",
    ),
    "rviz": ("false", "show the overlay"),
}


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` runs."""
    given = {name: LaunchConfiguration(name) for name in ARGUMENTS}
    node = LifecycleNode(
        package="differad_edge_ros",
        executable="inspector",
        name="inspector",
        namespace=given["namespace"],
        output="screen",
        respawn=True,
        respawn_delay=2.0,
        parameters=[
            given["params"],
            {
                "product": ParameterValue(given["product"], value_type=str),
                "mode": ParameterValue(given["mode"], value_type=str),
                "autostart": ParameterValue(given["autostart"], value_type=bool),
            },
        ],
        remappings=[("image", given["image"]), ("image/compressed", [given["image"], "/compressed"])],
    )
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", PathJoinSubstitution([FindPackageShare("differad_edge_ros"), "rviz", "cell.rviz"])],
        condition=IfCondition(given["rviz"]),
    )
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=description)
                for name, (default, description) in ARGUMENTS.items()
            ),
            SetEnvironmentVariable("FASTDDS_DEFAULT_PROFILES_FILE", given["fastdds"]),
            node,
            rviz,
        ]
    )
